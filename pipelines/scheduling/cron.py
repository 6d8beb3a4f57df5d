# SPDX-License-Identifier: Apache-2.0
"""Cron expressions of KFP's schedules: six fields, seconds first, without a time zone.

KFP's controller also accepts five fields, as six without the last: `0 3 * * *` then means second 0
of minute 3 of every hour. So five fields are refused here.
"""

import datetime
import re
from collections.abc import Mapping
from typing import Final

from ieg_core.errors import UserError

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS: Final[tuple[tuple[str, int, int, Mapping[str, int]], ...]] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(MONTHS, 1)}),
    ("day of the week", 0, 6, {name: number for number, name in enumerate(DAYS)}),
)
EXAMPLE: Final = "'0 30 2 * * 6' (Saturdays at 02:30:00)"


CALENDAR_YEARS: Final = range(2001, 2029)
"""All pairs of date and day of the week with their frequency: they repeat after 28 years."""


def runs_a_month(cron: str) -> float:
    """Returns how often a cron expression fires in an average month, a twelfth of a year.

    Follows KFP's controller: if both kinds of day are restricted, either is enough, and n/s means
    from n to the end in steps of s.

    Args:
      cron: An expression that `check` accepts.
    """
    texts = cron.split()
    seconds, minutes, hours, days, months, weekdays = map(_values, texts, FIELDS)
    is_either = not any(
        part.startswith(("*", "?")) for text in (texts[3], texts[5]) for part in text.split(",")
    )
    dates = 0
    day = datetime.date(CALENDAR_YEARS.start, 1, 1)
    while day.year < CALENDAR_YEARS.stop:
        fits = (day.day in days, day.isoweekday() % 7 in weekdays)
        dates += day.month in months and (any(fits) if is_either else all(fits))
        day += datetime.timedelta(days=1)
    times = len(seconds) * len(minutes) * len(hours)
    return dates * times / (12 * len(CALENDAR_YEARS))


def _values(text: str, field: tuple[str, int, int, Mapping[str, int]]) -> set[int]:
    """Returns the numbers that a field matches."""
    _, low, high, names = field
    numbers: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if first in ("*", "?"):
            start, end = low, high
        else:
            start = _number(first, names)
            end = _number(last, names) if dash else high if slash else start
        numbers.update(range(start, end + 1, int(step or 1)))
    return numbers


def check(cron: str) -> None:
    """Refuses an expression that KFP's controller would refuse or misread.

    Args:
      cron: For example "0 0 3 * * *", each day at 03:00:00.

    Raises:
      UserError: When there are not six fields, the expression has a time zone, a descriptor such as
        @daily or a value out of range, or its second is not a single number.
    """
    fields = cron.split()
    if "TZ=" in cron.upper():
        raise UserError(
            f"cron {cron!r} names a time zone, which KFP ignores: all schedules of a cluster use "
            f"its controller's zone; expected six fields, such as {EXAMPLE}"
        )
    if len(fields) == 5 and "@" not in cron:
        raise UserError(
            f"cron {cron!r} has 5 fields, which KFP would read with the seconds first, as every "
            f"hour or worse: expected 6, such as '0 {cron.strip()}'"
        )
    if len(fields) != 6:
        raise UserError(
            f"cron {cron!r} has {len(fields)} fields: expected 6, second minute hour day-of-month "
            f"month day-of-week, such as {EXAMPLE}"
        )
    for text, (name, low, high, names) in zip(fields, FIELDS, strict=True):
        for part in text.split(","):
            _check_part(cron, part, name, low, high, names)
    if not fields[0].isdigit():
        raise UserError(
            f"cron {cron!r} fires several times in a minute: expected one second, such as "
            f"'0 {' '.join(fields[1:])}'"
        )


def _check_part(
    cron: str, part: str, name: str, low: int, high: int, names: Mapping[str, int]
) -> None:
    span, slash, step = part.partition("/")
    wrong = UserError(
        f"cron {cron!r}: {part!r} is not a valid {name}: expected {low} to {high}"
        + (f" or {next(iter(names))} to {list(names)[-1]}" if names else "")
        + ", *, a-b, a,b or */n"
    )
    if slash and not (re.fullmatch(r"\d{1,4}", step) and int(step) > 0):
        raise wrong
    if span == "*" or (span == "?" and name.startswith("day") and not slash):
        return
    ends = [_number(text, names) for text in span.split("-")]
    if len(ends) > 2 or not all(low <= end <= high for end in ends) or ends != sorted(ends):
        raise wrong


def _number(text: str, names: Mapping[str, int]) -> int:
    if re.fullmatch(r"\d{1,4}", text):
        return int(text)
    return names.get(text.lower(), -1)
