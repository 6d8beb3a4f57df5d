# SPDX-License-Identifier: Apache-2.0
"""Chooses each method's settings by the same rule: equally many points, one grid, one measure.

A point is the recipe, or the recipe with another learning rate and other values of the method's own
settings (`MethodSpec.variants`), or of a head. Every method is tried at the same number of points
of a grid of learning rates × variants, in one order and with the same seeds. The measure is the
agreement with the given labels of a validation set that is held out of the training images, so a
choice needs no clean label, and the test set is not read. The table of all points is the recipe's
file (`ieg_core.recipes.tuned`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ieg_core.draws.generator import generator
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import method_spec
from ieg_core.experiment.overrides import override, settable_keys
from ieg_core.recipes.tuned import TunedRow
from ieg_core.store.layout import trial_folder
from ieg_core.store.records import ResultRecord
from ieg_core.sweep.configurations import configs
from ieg_core.sweep.request import SweepRequest

RATE_FACTORS: Final = (0.3, 1.0, 3.0)
"""The learning rates of the grid, relative to the recipe's."""
HEAD_VARIANTS: Final = tuple(f"head.weight_decay={value:g}" for value in (0.1, 0.3, 1.0))
"""The variants of a method none of whose settings the training of a head uses."""
MAX_POINTS: Final = 9


@dataclass(frozen=True)
class Point:
    """One choice of a method's settings, and the trials that judge it.

    Attributes:
      recipe: Name of the recipe.
      dataset: Data-set spec, complete.
      method: Name of the method.
      conditions: What all points change in the recipe, "key=value" each.
      settings: What this one changes besides; none for the recipe itself.
      request: The sweep of its trials.
      teacher: The sweep of the trials that teach them: what the point changes is not theirs.
    """

    recipe: str
    dataset: str
    method: str
    conditions: tuple[str, ...]
    settings: tuple[str, ...]
    request: SweepRequest
    teacher: SweepRequest


def grid(config: Config, number: int) -> list[tuple[str, ...]]:
    """Returns the points to try of one method: the recipe, then places of the grid.

    The order of the places, a learning rate relative to the recipe's with a variant, was drawn once
    for all methods; a place that is the recipe's own is passed over.

    Args:
      config: The method's configuration in the recipe.
      number: Number of points.

    Returns:
      `number` tuples of overrides, all different in effect; the first is empty.

    Raises:
      UserError: When `number` is not from 1 to `MAX_POINTS`.
    """
    if not 1 <= number <= MAX_POINTS:
        raise UserError(f"POINTS={number}: expected from 1 to {MAX_POINTS} points for each method")
    key = "optimizer.learning_rate" if config.head is None else "head.learning_rate"
    known = settable_keys(config)
    rate = known[key]
    variants = method_spec(config.method).variants
    if not {setting.partition("=")[0] for setting in " ".join(variants).split()} <= known.keys():
        variants = HEAD_VARIANTS
    places = [(factor, variant) for factor in RATE_FACTORS for variant in range(len(variants))]
    order = generator(0, "tuning").permutation(len(places))
    points: dict[Config, tuple[str, ...]] = {config: ()}
    for factor, variant in (places[place] for place in order):
        settings = (f"{key}={rate * factor:g}", *variants[variant].split())
        points.setdefault(override(config, settings), settings)
    return list(points.values())[:number]


def points(request: SweepRequest, number: int, validation_fraction: float) -> list[Point]:
    """Returns every point of every method and data set of a request, without reading data.

    Args:
      request: Data sets, methods and seeds to tune with.
      number: Points for each method.
      validation_fraction: Share of the training examples to choose by.

    Raises:
      UserError: When the request is invalid, or has no validation set.
    """
    if not validation_fraction:
        raise UserError("VALIDATION=0: expected a share above 0 and at most 0.5 to choose by")
    held_out = f"validation_fraction={validation_fraction:g}"
    named = {"schedule.num_steps": request.steps, "network": request.network or request.features}
    common = [f"{key}={value}" for key, value in named.items() if value] + [*request.settings]
    found = []
    for spec, config in configs(replace(request, seeds=request.seeds[:1])):
        recipe = replace(
            request,
            dataset=str(spec),
            noise_ratios=(),
            methods=(config.method,),
            settings=(*request.settings, held_out),
        )
        for settings in grid(config, number):
            found.append(
                Point(
                    recipe=config.recipe,
                    dataset=str(spec),
                    method=config.method,
                    conditions=(*common, held_out),
                    settings=settings,
                    request=replace(recipe, settings=(*request.settings, *settings, held_out)),
                    teacher=recipe,
                )
            )
    return found


def agreement(result: ResultRecord) -> float:
    """Returns the measure of one trial, in percent: balanced over the classes of a long tail."""
    if parse(result.dataset).imbalance is None:
        return 100 * result.accuracy_ema_last
    return 100 * (result.balanced_accuracy_ema_last or 0.0)


def choose(
    tried: Sequence[Point], trials: Mapping[Point, Sequence[str]], root: Path
) -> list[TunedRow]:
    """Judges points by their finished trials.

    Args:
      tried: The points, in the order of `points`.
      trials: The names of each point's trials, by seed.
      root: The results root.

    Returns:
      A row for each point. Of each data set and method the row with the highest mean is chosen,
      the first of equals; a point with a trial that has no result, such as a training that
      diverged, is never chosen.
    """
    rows = []
    for point in tried:
        results = [ResultRecord.look(trial_folder(root, name))[0] for name in trials[point]]
        measured = tuple(round(agreement(result), 2) for result in results if result)
        rows.append(
            TunedRow(
                recipe=point.recipe,
                dataset=point.dataset,
                method=point.method,
                conditions=point.conditions,
                settings=point.settings,
                seeds=point.request.seeds,
                agreements=measured if len(measured) == len(results) else (),
                chosen=False,
            )
        )
    best: dict[tuple[str, str], TunedRow] = {}
    for row in rows:
        key = (row.dataset, row.method)
        if row.agreements and (key not in best or row.mean > best[key].mean):
            best[key] = row
    return [replace(row, chosen=row is best.get((row.dataset, row.method))) for row in rows]
