# SPDX-License-Identifier: Apache-2.0
"""The label audits of a sweep's trials, summed up over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ieg_core.report.summary import Group, Statistic, percent, statistic
from ieg_core.report.trials import Trial

MEASURES = {"average_precision": "average precision", "auroc": "AUROC"}


@dataclass(frozen=True)
class AuditLine:
    """One data set and method: how many labels look wrong, and how right that is.

    Attributes:
      dataset: The data set.
      label: The method, told apart as in the results.
      seeds: How many audits this is the mean of.
      flagged: The share of labels that look wrong, as text.
      measures: Average precision, AUROC, precision and recall as text; "-" where unknown.
    """

    dataset: str
    label: str
    seeds: int
    flagged: str
    measures: tuple[str, ...]


def audit_lines(groups: Sequence[Group], trials: Mapping[str, Trial]) -> list[AuditLine]:
    """Lists the audits that a sweep's trials have.

    Args:
      groups: All groups of the sweep.
      trials: The sweep's trials by name.

    Returns:
      A line for each group with an audit, in the groups' order.
    """
    lines = []
    for group in groups:
        own = [audit for row in group.rows if (audit := trials[row["trial"]].audit)]
        if not own:
            continue
        share = statistic(
            audit.flagged / audit.examples if audit.examples else None for audit in own
        )
        found = {
            name: statistic(getattr(audit, name) for audit in own)
            for name in (*MEASURES, "precision", "recall")
        }
        texts = [_three(found[name]) for name in MEASURES]
        texts += [_percent(found[name]) for name in ("precision", "recall")]
        flagged, measures = _percent(share), tuple(texts)
        lines.append(AuditLine(group.dataset, group.label, len(own), flagged, measures))
    return lines


def _three(value: Statistic | None) -> str:
    return "-" if value is None else f"{value.mean:.3f}"


def _percent(value: Statistic | None) -> str:
    return "-" if value is None else percent(value.mean)
