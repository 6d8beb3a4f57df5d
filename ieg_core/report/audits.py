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
        own = [trials[row["trial"]] for row in group.rows if trials[row["trial"]].audit]
        if not own:
            continue
        share = statistic(
            _ratio(trial.audit.get("flagged"), trial.audit.get("examples")) for trial in own
        )
        found = {
            name: statistic(_number(trial.audit.get(name)) for trial in own)
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


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _ratio(part: object, whole: object) -> float | None:
    one, all_ = _number(part), _number(whole)
    return one / all_ if one is not None and all_ else None
