# SPDX-License-Identifier: Apache-2.0
"""Cron expressions against a search for the next run, second by second and day by day."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ieg_core.errors import UserError
from pipelines.scheduling import cron

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
DAY = datetime.timedelta(days=1)


def fits(text: str, value: int, highest: int, names: list[str], first_name: int) -> bool:
    """Returns whether a field lets a value pass, by comparisons alone."""
    for number, name in enumerate(names, first_name):
        text = text.lower().replace(name, str(number))
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, dash, high = span.partition("-")
        if low in ("*", "?"):
            low, high = ("0" if first_name == 0 else "1"), str(highest)
        elif not dash:
            high = str(highest) if step else low
        if int(low) <= value <= int(high) and (value - int(low)) % int(step or 1) == 0:
            return True
    return False


def is_day(fields: list[str], day: datetime.date) -> bool:
    """KFP's rule: either day is enough where neither field has a star, else both are needed."""
    if not fits(fields[4], day.month, 12, MONTHS, 1):
        return False
    of_month = fits(fields[3], day.day, 31, [], 1)
    of_week = fits(fields[5], day.isoweekday() % 7, 6, WEEKDAYS, 0)
    has_star = any(part[0] in "*?" for field in (fields[3], fields[5]) for part in field.split(","))
    return (of_month and of_week) if has_star else (of_month or of_week)


def next_day(fields: list[str], after: datetime.date, end: datetime.date) -> datetime.date | None:
    """Returns the first day with a run after a day; None where there is none up to the end."""
    day = after + DAY
    while day <= end:
        if is_day(fields, day):
            return day
        day += DAY
    return None


def next_second(fields: list[str], after: int) -> int | None:
    """Returns the first second of a day with a run after a second; None if there is none."""
    for second in range(after + 1, 24 * 3600):
        if (
            fits(fields[0], second % 60, 59, [], 0)
            and fits(fields[1], second // 60 % 60, 59, [], 0)
            and fits(fields[2], second // 3600, 23, [], 0)
        ):
            return second
    return None


def count(following, first):
    """Counts the runs that follow one another."""
    number, at = 0, first
    while (at := following(at)) is not None:
        number += 1
    return number


def part(low: int, high: int, names: list[str]) -> st.SearchStrategy[str]:
    """Draws a value, a range or a star, each with or without a step."""
    value = st.integers(low, high)
    shown = value.map(str)
    if names:
        shown |= value.map(lambda number: names[number - low]) | value.map(
            lambda number: names[number - low].upper()
        )
    ranges = st.tuples(value, value).map(lambda ends: f"{min(ends)}-{max(ends)}")
    spans = shown | ranges | st.just("*")
    return spans | st.tuples(spans, st.integers(1, high)).map(lambda two: f"{two[0]}/{two[1]}")


def field(low: int, high: int, names: list[str] = []) -> st.SearchStrategy[str]:  # noqa: B006
    return st.lists(part(low, high, names), min_size=1, max_size=3).map(",".join)


EXPRESSION = st.tuples(
    st.integers(0, 59).map(str),
    field(0, 59),
    field(0, 23),
    field(1, 31) | st.just("?"),
    field(1, 12, MONTHS),
    field(0, 6, WEEKDAYS) | st.just("?"),
).map(" ".join)


@given(EXPRESSION)
@settings(max_examples=15)
def test_the_runs_of_a_month_are_those_that_a_search_finds(text):
    cron.check(text)
    fields = text.split()
    before, end = datetime.date(2000, 12, 31), datetime.date(2028, 12, 31)
    days = count(lambda day: next_day(fields, day, end), before)
    seconds = count(lambda second: next_second(fields, second), -1)
    assert cron.runs_a_month(text) == pytest.approx(days * seconds / (28 * 12))


NEARLY = st.lists(
    st.text(alphabet="0123456789*/-,?@janmonTZ=\u0663\u00b2", max_size=6), min_size=1, max_size=7
).map(" ".join)


@given(st.one_of(NEARLY, st.text(max_size=20)))
@settings(max_examples=200)
def test_any_text_is_an_expression_or_a_mistake_of_the_users(text):
    try:
        cron.check(text)
    except UserError as error:
        message = str(error)
    else:
        assert cron.runs_a_month(text) >= 0
        return
    assert "\n" not in message


@given(EXPRESSION, st.integers(0, 5), st.integers(60, 9999))
def test_a_value_beyond_its_field_is_refused(text, place, value):
    fields = text.split()
    fields[place] = str(value)
    with pytest.raises(UserError, match=str(value)):
        cron.check(" ".join(fields))


def test_a_step_of_any_length_is_one_line():
    with pytest.raises(UserError, match="is not a valid minute") as error:
        cron.check(f"0 */{'9' * 5000} * * * *")
    assert "\n" not in str(error.value)
