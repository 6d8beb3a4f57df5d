# SPDX-License-Identifier: Apache-2.0
"""The label audits of a sweep's cells, summed up over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from ieg_core.report.cells import Cell
from ieg_core.report.summary import Statistic, percent, statistic

MEASURES = {"average_precision": "average precision", "auroc": "AUROC"}


@dataclass(frozen=True)
class AuditLine:
    """One data set and method: how many labels look wrong, and how right that is.

    Attributes:
      dataset: The data set.
      method: The method.
      seeds: How many audits this is the mean of.
      flagged: The share of labels that look wrong, as text.
      measures: Average precision, AUROC, precision and recall as text; "-" where unknown.
    """

    dataset: str
    method: str
    seeds: int
    flagged: str
    measures: tuple[str, ...]


def audit_lines(cells: Sequence[Cell]) -> list[AuditLine]:
    """Lists the audits that a sweep's cells have, in the cells' order."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.audit:
            key = (str(cell.row["dataset"]), str(cell.row["method"]))
            groups.setdefault(key, []).append(cell)
    lines = []
    for (dataset, method), own in groups.items():
        share = statistic(
            _ratio(cell.audit.get("flagged"), cell.audit.get("examples")) for cell in own
        )
        found = {
            name: statistic(_number(cell.audit.get(name)) for cell in own)
            for name in (*MEASURES, "precision", "recall")
        }
        texts = [_three(found[name]) for name in MEASURES]
        texts += [_percent(found[name]) for name in ("precision", "recall")]
        lines.append(AuditLine(dataset, method, len(own), _percent(share), tuple(texts)))
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
