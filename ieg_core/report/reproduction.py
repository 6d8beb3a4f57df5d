# SPDX-License-Identifier: Apache-2.0
"""Whether finished trials reproduce a published figure, or the last accepted run.

For each group of trials that differ only in their seed, with m the mean over seeds of the accuracy
after the last step (EMA parameters), in percent:

published figure f     reproduced if m >= f - tolerance. One-sided, because a better result is not a
                       failure to reproduce; a remark says if it is better by more than the
                       tolerance.
accepted run's mean f  reproduced if |m - f| <= tolerance. Two-sided, because it is our own run with
                       the same settings: a rise is a change too, which a person has to accept.

A published figure with the same protocol takes precedence over the accepted run. A group that is
comparable with neither is "not comparable", with the reason, and does not fail the run.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ieg_core.errors import UserError
from ieg_core.experiment.networks import standard_form
from ieg_core.recipes.family import Published
from ieg_core.recipes.published import PUBLISHED, protocol_difference
from ieg_core.report.summary import PLUS_MINUS, Group, Statistic
from ieg_core.report.trials import FINISHED, Row
from ieg_core.store.layout import REPORT_JSON
from ieg_core.store.records import ReportRecord, VerdictRecord

REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE = "reproduced", "not reproduced", "not comparable"
_ROUNDING = 1e-9
"""Per cent. A mean on the limit counts as reproduced, and 80.2 - 1.0 is not 79.2 in binary."""
_SAME_PROTOCOL = ("clean_labels_used", "true_flip_rate", "recipe", "steps", "changed_settings")


@dataclass(frozen=True)
class Verdict:
    """The verdict on the trials of one data set, method and network.

    Attributes:
      dataset: Data-set spec.
      method: Name of the method.
      network: Name of the network.
      outcome: `REPRODUCED`, `NOT_REPRODUCED` or `NOT_COMPARABLE`.
      reason: Why they are not comparable; a remark on a reproduced figure; or "".
      accuracy: Mean over the finished seeds, percent; None if no trial finished.
      deviation: Sample deviation over them, percentage points; None for fewer than two.
      seeds: How many trials finished.
      figure: The figure that they were compared with, percent, also if not comparable; or None.
      source: The source of the figure.
      tolerance: Percentage points.
    """

    dataset: str
    method: str
    network: str
    outcome: str
    reason: str
    accuracy: float | None
    deviation: float | None
    seeds: int
    figure: float | None
    source: str
    tolerance: float

    @property
    def is_failure(self) -> bool:
        """Whether it fails a scheduled run."""
        return self.outcome == NOT_REPRODUCED

    @property
    def text(self) -> str:
        """The verdict in one line."""
        parts = [f"{self.dataset} {self.method} ({self.network}): {self.outcome}"]
        if self.accuracy is not None:
            seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
            parts.append(f"{_percent(self.accuracy, self.deviation)} % over {seeds}")
        if self.figure is not None:
            parts.append(f"figure {self.figure:.2f} ({self.source})")
        if self.outcome != NOT_COMPARABLE:
            parts.append(f"tolerance {self.tolerance:g}")
        return "; ".join([*parts, self.reason] if self.reason else parts)


def judge(
    groups: Sequence[Group],
    published: Sequence[Published] = PUBLISHED,
    tolerance: float = 1.0,
    accepted: Sequence[Group] = (),
) -> list[Verdict]:
    """Judges every group of trials that differ only in their seed.

    Args:
      groups: The groups of a report.
      published: Published figures.
      tolerance: Percentage points, at least 0.
      accepted: The groups of the last accepted run; empty if there is none.

    Returns:
      One verdict per group, in their order.

    Raises:
      UserError: When the tolerance is negative or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UserError(
            f"received a tolerance of {tolerance:g}: expected percentage points, at least 0, "
            "such as 0.5"
        )
    return [_judge_group(group, published, tolerance, accepted) for group in groups]


def failures(verdicts: Iterable[Verdict]) -> list[str]:
    """Returns the texts of the verdicts that fail a run."""
    return [verdict.text for verdict in verdicts if verdict.is_failure]


def as_record(verdicts: Sequence[Verdict], *, schedule: str = "") -> VerdictRecord:
    """Returns the content of verdict.json: the schedule, and every verdict with its text."""
    records = [asdict(verdict) | {"text": verdict.text} for verdict in verdicts]
    return VerdictRecord(schedule=schedule, verdicts=records)


def accepted_rows(document: ReportRecord | None, place: str) -> list[Row]:
    """Returns the rows of an accepted run.

    Args:
      document: Its results; None if there are none.
      place: The file, for the message.

    Returns:
      Its rows; empty if there is no file.

    Raises:
      UserError: When the rows lack what a comparison needs.
    """
    rows = [dict(row) for row in document.trials] if document else []
    needed = {"dataset", "method", "network", "steps", "status", *_SAME_PROTOCOL}
    for row in rows:
        if missing := sorted(needed - row.keys()):
            raise UserError(
                f"{place} is not a {REPORT_JSON} of this version: received a row without "
                f"{', '.join(missing)}; accept a newer run instead, or delete it"
            )
    return rows


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Formats the verdicts for the KFP UI: one line of counts, then a table."""
    counts = {
        outcome: sum(verdict.outcome == outcome for verdict in verdicts)
        for outcome in (REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE)
    }
    head = ["data set", "method", "network", "verdict", "ours %", "seeds", "figure %", "why"]
    table = [head, ["---"] * len(head)]
    for verdict in verdicts:
        figure = "" if verdict.figure is None else f"{verdict.figure:.2f}"
        why = [text for text in (verdict.source, verdict.reason) if text]
        ours = "" if verdict.accuracy is None else _percent(verdict.accuracy, verdict.deviation)
        line = [verdict.dataset, verdict.method, verdict.network, f"**{verdict.outcome}**"]
        table.append([*line, ours, str(verdict.seeds), figure, "; ".join(why)])
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    lines = [f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in table]
    return f"{summary}\n\n" + "\n".join(lines) + "\n"


def _judge_group(
    group: Group, published: Sequence[Published], tolerance: float, accepted: Sequence[Group]
) -> Verdict:
    mine = group.accuracy_ema_last

    def verdict(
        outcome: str, reason: str = "", figure: float | None = None, source: str = ""
    ) -> Verdict:
        return Verdict(
            dataset=group.dataset,
            method=group.method,
            network=str(group.rows[0]["network"]),
            outcome=outcome,
            reason=reason,
            accuracy=_in_percent(mine),
            deviation=None if mine is None or mine.deviation is None else 100 * mine.deviation,
            seeds=0 if mine is None else mine.count,
            figure=figure,
            source=source,
            tolerance=tolerance,
        )

    lost = [row for row in group.rows if row["status"] != FINISHED]
    if lost or mine is None:
        first = f": {lost[0]['reason']}" if lost else ""
        return verdict(
            NOT_COMPARABLE, f"{len(lost)} of {len(group.rows)} trials did not finish{first}"
        )
    mean = 100 * mine.mean
    figure, reason = _published_for(group, published)
    if figure is not None and not reason:
        below = mean < figure.accuracy - tolerance - _ROUNDING
        above = mean > figure.accuracy + tolerance + _ROUNDING
        remark = "above it by more than the tolerance: is the protocol the same?" if above else ""
        outcome = NOT_REPRODUCED if below else REPRODUCED
        return verdict(outcome, remark, figure.accuracy, figure.source)
    old, other = _accepted_for(group, accepted)
    if old is None:
        shown = (figure.accuracy, figure.source) if figure is not None else (None, "")
        return verdict(NOT_COMPARABLE, f"{reason}; {other}", *shown)
    same = abs(mean - old) <= tolerance + _ROUNDING
    return verdict(REPRODUCED if same else NOT_REPRODUCED, "", old, "last accepted run")


def _published_for(group: Group, published: Sequence[Published]) -> tuple[Published | None, str]:
    """Returns the published figure of a group, and why it is not comparable or ""."""
    row = group.rows[0]
    known = [p for p in published if (p.dataset, p.method) == (group.dataset, group.method)]
    if not known:
        return None, "no published figure"
    # Comparable figures take precedence, then those of the same network, then of its other form.
    differences = [protocol_difference(row, figure) for figure in known]
    form = standard_form(str(row["network"]))
    order = [
        (
            difference != "",
            figure.network != row["network"],
            standard_form(figure.network) != form,
            figure.is_recalled,
        )
        for figure, difference in zip(known, differences, strict=True)
    ]
    best = order.index(min(order))
    return known[best], differences[best]


def _accepted_for(group: Group, accepted: Sequence[Group]) -> tuple[float | None, str]:
    """Returns (mean of the accepted run in percent, ""), or (None, the reason)."""
    if not accepted:
        return None, "no run was accepted yet"
    row = group.rows[0]
    key = (group.dataset, group.method, row["network"])
    known = [g for g in accepted if (g.dataset, g.method, g.rows[0]["network"]) == key]
    if not known:
        return None, "the accepted run has no such trial"
    same = [g for g in known if _protocol(g.rows[0]) == _protocol(row)]
    if not same:
        old, new = _protocol(known[0].rows[0]), _protocol(row)
        name = next(name for name in _SAME_PROTOCOL if old[name] != new[name])
        return None, f"the accepted run has another {name}: {old[name]}, not {new[name]}"
    reference = same[0]
    if len(reference.finished) < len(reference.trials) or reference.accuracy_ema_last is None:
        return None, "trials of the accepted run did not finish"
    return 100 * reference.accuracy_ema_last.mean, ""


def _protocol(row: Row) -> Mapping[str, Any]:
    return {name: row.get(name) for name in _SAME_PROTOCOL}


def _in_percent(value: Statistic | None) -> float | None:
    return None if value is None else 100 * value.mean


def _percent(mean: float, deviation: float | None) -> str:
    spread = "" if deviation is None else f" {PLUS_MINUS} {deviation:.2f}"
    return f"{mean:.2f}{spread}"
