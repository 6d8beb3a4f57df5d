# SPDX-License-Identifier: Apache-2.0
"""The label audits of a sweep's trials, averaged over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from ieg_core.report.summary import Group, Statistic, percent, statistic

MEASURES = {
    "average_precision": "average precision",
    "auroc": "AUROC",
    "precision": "precision",
    "recall": "recall",
}
"""The measures of an audit, with their names in text."""
RANKINGS = ("average_precision", "auroc")


@dataclass(frozen=True)
class AuditLine:
    """One data set and method: how many labels look wrong, and how often that is right.

    Attributes:
      dataset: The data set.
      label: The method, labeled as in the results.
      seeds: The number of audits averaged.
      flagged: The share of labels that look wrong, as text.
      measures: The `MEASURES` as text; "-" where unknown.
    """

    dataset: str
    label: str
    seeds: int
    flagged: str
    measures: tuple[str, ...]


def audit_lines(groups: Sequence[Group]) -> list[AuditLine]:
    """Returns one line for each group with an audit, in the groups' order."""
    lines = []
    for group in groups:
        audits = [trial.audit for trial in group.trials if trial.audit]
        if not audits:
            continue
        share = statistic(
            audit.flagged / audit.examples if audit.examples else None for audit in audits
        )
        measures = tuple(
            _mean_text(name, statistic(getattr(audit, name) for audit in audits))
            for name in MEASURES
        )
        flagged = _mean_text("flagged", share)
        lines.append(AuditLine(group.dataset, group.label, len(audits), flagged, measures))
    return lines


def measure_text(name: str, value: float | None) -> str:
    """Formats a measure as reports and commands show it: rankings as numbers, shares in %.

    Args:
      name: One of `MEASURES`, or the name of a share.
      value: In [0, 1]; None if unknown.
    """
    if value is None:
        return "-"
    return f"{value:.3f}" if name in RANKINGS else percent(value)


def _mean_text(name: str, value: Statistic | None) -> str:
    return measure_text(name, None if value is None else value.mean)
