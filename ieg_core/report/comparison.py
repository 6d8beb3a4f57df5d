# SPDX-License-Identifier: Apache-2.0
"""Which methods lead a column of the results, and which ones chance does not separate from them.

The leaders are the method with the highest mean and all that are not clearly worse than it by a
one-sided t-test at level 5 % / (K − 1), K being the number of methods in the column. The best
method is among them in at least 95 % of the columns: to miss it, one of the K − 1 others would have
to exceed it in its test, and each does so with at most that level. A method that leads alone is
therefore the best with 95 % confidence, however many were compared.

Methods see the same images, wrong labels and initial weights in each seed, so differences are
paired by seed; Welch's test takes over where fewer than three seeds are shared. One or two seeds
allow no test. A difference must then exceed the deviation and what drawing other test images alone
would explain, which is a lower bound on chance.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ieg_core.report.summary import Group
from ieg_core.report.trials import Row

LEVEL = 0.05
"""How often the best method may be missing among the leaders."""
FEWEST_SEEDS = 3
"""Fewer seeds allow no test: with two, t exceeds 30 at level 1 %."""

Figure = Callable[[Row], float | None]


@dataclass(frozen=True)
class Entrant:
    """A method in a column of the results.

    Attributes:
      group: Its trials.
      values: Its accuracy by seed, in [0, 1]; not empty.
      num_test: Test images; 0 if unknown.
    """

    group: Group
    values: Mapping[Any, float]
    num_test: int = 0

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values.values())


@dataclass(frozen=True)
class Contest:
    """A column of the results: the methods at one noise rate.

    Attributes:
      ranked: The methods with a result, the highest mean first.
      leaders: The first of them and all that are not clearly worse.
    """

    ranked: tuple[Entrant, ...]
    leaders: tuple[Entrant, ...]

    def leads(self, group: Group) -> bool:
        """Returns whether a method is among the leaders, and was compared with another."""
        return len(self.ranked) > 1 and any(each.group is group for each in self.leaders)

    def separates(self, one: Group, other: Group) -> bool:
        """Returns whether the first of two ranked methods is clearly better than the second."""
        first, second = (
            next(each for each in self.ranked if each.group is group) for group in (one, other)
        )
        return exceeds(first, second, len(self.ranked) - 1)


def accuracy(row: Row) -> float | None:
    """Returns the headline figure of a trial."""
    value: float | None = row["accuracy_ema_last"]
    return value


def compare(groups: Sequence[Group], figure: Figure = accuracy) -> Contest:
    """Ranks the methods of one data set and finds the leaders.

    Args:
      groups: The groups of one data set, in any order.
      figure: The accuracy of a finished trial's row, in [0, 1]; None if it has none.

    Returns:
      The contest; without entrants if no trial has a figure.
    """
    entrants = [
        Entrant(group, values, _num_test(group) if figure is accuracy else 0)
        for group in groups
        if (values := _by_seed(group, figure))
    ]
    # Equal means: by name, so that the order of the groups does not matter.
    ranked = sorted(entrants, key=lambda each: (-each.mean, each.group.label))
    rivals = len(ranked) - 1
    leaders = [each for each in ranked if each is ranked[0] or not exceeds(ranked[0], each, rivals)]
    return Contest(tuple(ranked), tuple(leaders))


def exceeds(one: Entrant, other: Entrant, comparisons: int) -> bool:
    """Returns whether one method is clearly better than another.

    Args:
      one: The method with the higher mean.
      other: The other one.
      comparisons: Number of comparisons that share the level of 5 %.
    """
    level = LEVEL / comparisons
    shared = sorted(one.values.keys() & other.values.keys())
    if len(shared) >= FEWEST_SEEDS:
        differences = [one.values[seed] - other.values[seed] for seed in shared]
        gain = statistics.fmean(differences)
        error = statistics.stdev(differences) / math.sqrt(len(shared))
        freedom = len(shared) - 1.0
    elif min(len(one.values), len(other.values)) >= FEWEST_SEEDS:
        gain = one.mean - other.mean
        error, freedom = _welch(list(one.values.values()), list(other.values.values()))
    else:
        gain = one.mean - other.mean
        z = statistics.NormalDist().inv_cdf(1 - level)
        return gain > max(z * sampling_error(one, other), *map(_deviation, (one, other)))
    # Seeds that agree by rounding do not agree better than to one test image.
    images = max(one.num_test, other.num_test)
    error = max(error, 1 / images / math.sqrt(freedom + 1) if images else 0.0)
    return gain > _t_quantile(freedom, level) * error


def sampling_error(one: Entrant, other: Entrant) -> float:
    """Computes the deviation of a difference over draws of the test images.

    sqrt(p(1 − p)/n + q(1 − q)/n), an upper bound, since both methods see the same images; 0 if
    their number n is unknown.
    """
    images = min(one.num_test, other.num_test)
    variance = sum(each.mean * (1 - each.mean) for each in (one, other))
    return math.sqrt(max(0.0, variance) / images) if images else 0.0


def _welch(ones: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Returns the standard error of a difference of means, and its degrees of freedom."""
    parts = [statistics.variance(values) / len(values) for values in (ones, others)]
    total = sum(parts)
    if not total:
        return 0.0, float(min(len(ones), len(others)) - 1)
    below = sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (ones, others), strict=True)
    )
    return math.sqrt(total), total**2 / below


def _t_quantile(freedom: float, level: float) -> float:
    # Half a second that reports without repeated seeds need not spend.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - level))


def _by_seed(group: Group, figure: Figure) -> dict[Any, float]:
    values = {trial.row["seed"]: figure(trial.row) for trial in group.finished}
    return {seed: value for seed, value in values.items() if value is not None}


def _num_test(group: Group) -> int:
    """Returns the number of test images, from the confusion matrix; 0 if there is none."""
    counts = [int(each.confusion.sum()) for each in group.finished if each.confusion is not None]
    return counts[0] if counts else 0


def _deviation(entrant: Entrant) -> float:
    values = list(entrant.values.values())
    return statistics.stdev(values) if len(values) > 1 else 0.0
