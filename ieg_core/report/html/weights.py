# SPDX-License-Identifier: Apache-2.0
"""How methods weight the classes of a long tail."""

from collections.abc import Sequence
from dataclasses import dataclass

from ieg_core.report.summary import Group, has_long_tail


@dataclass(frozen=True)
class WeightView:
    """A table of mean weights by class.

    Attributes:
      dataset: The data set.
      class_names: The columns, the most frequent class first.
      lines: (method, a text for each class): the mean over seeds, in units of the mean weight.
    """

    dataset: str
    class_names: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


def weight_views(groups: Sequence[Group]) -> list[WeightView]:
    """Returns one table for each long-tailed data set among the groups of a family."""
    views = []
    for dataset in dict.fromkeys(group.dataset for group in groups if has_long_tail(group.rows[0])):
        lines: list[tuple[str, tuple[str, ...]]] = []
        names: tuple[str, ...] = ()
        for group in (group for group in groups if group.dataset == dataset):
            weights = [trial.row.get("mean_weight_per_class") for trial in group.finished]
            known = [each for each in weights if isinstance(each, list)]
            if known:
                names = group.finished[0].class_names
                lines.append((group.label, tuple(map(_text, zip(*known, strict=True)))))
        if lines:
            views.append(WeightView(dataset, names, tuple(lines)))
    return views


def _text(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else ""
