# SPDX-License-Identifier: Apache-2.0
"""Whether finished trials reproduce a published figure, or the last accepted run.

For each group of trials that differ in the seed alone, with m the mean over seeds of the accuracy
after the last step (EMA parameters), in per cent:

published figure f    reproduced if m >= f - tolerance: one-sided. To be better than a paper is no
                      failure to reproduce it; more than the tolerance above, the text says so.
accepted run's mean f reproduced if |m - f| <= tolerance: two-sided. It is our own run with the same
                      settings, so that a rise is a change too, which somebody has to accept.

A published figure that may be gated on goes before the accepted run. What cannot be held against
either is "not comparable", with the reason; that fails nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ieg_core.errors import UserError
from ieg_core.recipes.family import Published
from ieg_core.recipes.published import PUBLISHED, protocol_difference
from ieg_core.report.summary import PLUS_MINUS, Group, Statistic, group_rows, statistic
from ieg_core.report.trials import FINISHED, Row

REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE = "reproduced", "not reproduced", "not comparable"
SCHEMA = 1
_ROUNDING = 1e-9
"""Per cent. 80.2 - 1.0 is not 79.2 in binary; a mean on the limit counts as reproduced."""
_SAME_PROTOCOL = ("clean_labels_used", "true_flip_rate", "recipe", "steps", "changed_settings")


@dataclass(frozen=True)
class Verdict:
    """What is to be said of the trials of one data set, method and network.

    Attributes:
      dataset: Data-set spec.
      method: Name of the method.
      network: Name of the network.
      outcome: `REPRODUCED`, `NOT_REPRODUCED` or `NOT_COMPARABLE`.
      reason: Why they are not comparable; a remark on a reproduced figure; or "".
      accuracy: Mean over the finished seeds, per cent; None if no trial finished.
      deviation: Sample deviation over them, points of per cent; None for fewer than two.
      seeds: How many trials finished.
      figure: What they were held against, per cent; shown also where not comparable; or None.
      source: Where the figure stands.
      tolerance: Points of per cent.
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
        """Whether a scheduled run has to fail for it."""
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
    rows: Sequence[Row],
    published: Sequence[Published] = PUBLISHED,
    tolerance: float = 1.0,
    accepted: Sequence[Row] = (),
) -> list[Verdict]:
    """Judges every group of trials that differ in the seed alone.

    Args:
      rows: Rows of results.json.
      published: Published figures.
      tolerance: Points of per cent, at least 0.
      accepted: Rows of the last accepted run; empty if there is none.

    Returns:
      A verdict a group, in the rows' order.

    Raises:
      UserError: A negative or infinite tolerance.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UserError(
            f"received a tolerance of {tolerance:g}: expected points of per cent, at least 0, "
            "such as 0.5"
        )
    old = group_rows(accepted)
    return [_judge_group(group, published, tolerance, old) for group in group_rows(rows)]


def failures(verdicts: Iterable[Verdict]) -> list[str]:
    """Returns the texts of the verdicts that fail a run."""
    return [verdict.text for verdict in verdicts if verdict.is_failure]


def as_json(verdicts: Sequence[Verdict], *, schedule: str = "") -> dict[str, Any]:
    """Returns what verdict.json holds: the schedule, and every verdict with its text."""
    found = [asdict(verdict) | {"text": verdict.text} for verdict in verdicts]
    return {"schema": SCHEMA, "schedule": schedule, "verdicts": found}


def accepted_rows(document: Any, place: str) -> list[Row]:
    """Returns the rows of an accepted results.json.

    Args:
      document: The file as read; None if there is none.
      place: Where it lies, for the message.

    Returns:
      Its rows; none if there is no file.

    Raises:
      UserError: It is no results.json.
    """
    if document is None:
        return []
    trials = document.get("trials") if isinstance(document, dict) else None
    needed = {"dataset", "method", "network", "steps", "status", *_SAME_PROTOCOL}
    if not isinstance(trials, list) or not all(
        isinstance(row, dict) and needed <= row.keys() for row in trials
    ):
        raise UserError(
            f"{place} is no results.json of this version: expected a list `trials` of rows; "
            "accept a newer run in its place, or delete it"
        )
    return trials


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Lays the verdicts out for the KFP UI: one line of counts, then a table."""
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
    mine = statistic(row["accuracy_ema_last"] for row in group.rows if row["status"] == FINISHED)

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
    """Finds the published figure of a group and why it cannot be held against it, or ""."""
    row = group.rows[0]
    known = [p for p in published if (p.dataset, p.method) == (group.dataset, group.method)]
    if not known:
        return None, "no published figure"
    # Figures that may be gated on go first, then those of the same network.
    differences = [protocol_difference(row, figure) for figure in known]
    order = [
        (difference != "", figure.network != row["network"], figure.is_recalled)
        for figure, difference in zip(known, differences, strict=True)
    ]
    best = order.index(min(order))
    return known[best], differences[best]


def _accepted_for(group: Group, accepted: Sequence[Group]) -> tuple[float | None, str]:
    """Returns an accepted run's mean for a group in per cent, or None and why there is none."""
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
        return None, f"the accepted run had another {name}: {old[name]}, not {new[name]}"
    found = same[0]
    if found.num_finished < len(found.rows) or found.accuracy_ema_last is None:
        return None, "trials of the accepted run did not finish"
    return 100 * found.accuracy_ema_last.mean, ""


def _protocol(row: Row) -> Mapping[str, Any]:
    return {name: row.get(name) for name in _SAME_PROTOCOL}


def _in_percent(found: Statistic | None) -> float | None:
    return None if found is None else 100 * found.mean


def _percent(mean: float, deviation: float | None) -> str:
    spread = "" if deviation is None else f" {PLUS_MINUS} {deviation:.2f}"
    return f"{mean:.2f}{spread}"
