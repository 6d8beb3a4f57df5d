# SPDX-License-Identifier: Apache-2.0
"""How methods weighted the classes of a long tail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ieg_core.report.summary import Group
from ieg_core.report.trials import FINISHED, Trial, parse_dataset


@dataclass(frozen=True)
class WeightView:
    """A table of mean weights by class.

    Attributes:
      dataset: The data set.
      class_names: The columns, the commonest class first.
      lines: (method, a text for each class): the mean over seeds, in units of the mean weight.
    """

    dataset: str
    class_names: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


def weight_views(groups: Sequence[Group], trials: Mapping[str, Trial]) -> list[WeightView]:
    """Lays out the weights of each long-tailed data set; none for others.

    Args:
      groups: Groups of one data-set family.
      trials: The sweep's trials by name.
    """
    views = []
    for dataset in dict.fromkeys(group.dataset for group in groups):
        own = [group for group in groups if group.dataset == dataset]
        parsed = parse_dataset(own[0].rows[0])
        if parsed is None or parsed.imbalance is None:
            continue
        lines: list[tuple[str, tuple[str, ...]]] = []
        names: tuple[str, ...] = ()
        for group in own:
            done = [row for row in group.rows if row["status"] == FINISHED]
            found = [row["mean_weight_per_class"] for row in done if _has_weights(row)]
            if found:
                names = trials[done[0]["trial"]].class_names
                lines.append((group.label, tuple(map(_text, zip(*found, strict=True)))))
        if lines:
            views.append(WeightView(dataset, names, tuple(lines)))
    return views


def _has_weights(row: Mapping[str, object]) -> bool:
    return isinstance(row.get("mean_weight_per_class"), list)


def _text(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else ""
