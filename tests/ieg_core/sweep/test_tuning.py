# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import METHODS
from ieg_core.experiment.overrides import override
from ieg_core.recipes import build
from ieg_core.store.layout import trial_folder
from ieg_core.sweep import tuning
from ieg_core.sweep.request import SweepRequest
from tests.records import put


@pytest.mark.parametrize(
    ("method", "recipe"),
    [
        *((method, "digits") for method in METHODS),
        *((method, "features") for method, spec in METHODS.items() if spec.trains_heads),
    ],
)
def test_every_method_is_tried_as_often_at_different_points_from_the_recipe_on(method, recipe):
    spec = parse("digits_uniform_0.4" if recipe == "digits" else "cifar10_uniform_0.4")
    config = build.build_config(spec, method, recipe=recipe)
    points = tuning.grid(config, 9)
    assert points[0] == ()
    assert len({override(config, settings) for settings in points}) == 9
    # The same learning rates, in the same proportion to the recipe's.
    key = "optimizer.learning_rate" if recipe == "digits" else "head.learning_rate"
    rates = sorted(each[0] for each in points[1:])
    rate = 0.1 if recipe == "digits" else 0.001
    assert rates == sorted([f"{key}={rate * f:g}" for f in (0.3, 0.3, 0.3, 1, 1, 3, 3, 3)])
    assert tuning.grid(config, 4) == points[:4]


@pytest.mark.parametrize("number", [0, 10])
def test_a_number_of_points_that_the_grid_does_not_have_is_refused(number):
    config = build.build_config(parse("digits_uniform_0.4"), "ieg")
    with pytest.raises(UserError, match=rf"POINTS={number}: expected from 1 to 9"):
        tuning.grid(config, number)


REQUEST = SweepRequest(
    dataset="digits_uniform",
    noise_ratios=(0.4, 0.8),
    methods=("supervised", "ieg"),
    seeds=(100, 101),
    settings=("batch_size=50",),
)


def test_points_hold_out_a_validation_set_and_keep_the_settings_of_the_request():
    points = tuning.points(REQUEST, 3, 0.2)
    assert [(point.dataset, point.method) for point in points] == [
        (f"digits_uniform_{rate}", method)
        for rate in (0.4, 0.8)
        for method in ("supervised", "ieg")
        for _ in range(3)
    ]
    assert points[0].request.settings == ("batch_size=50", "validation_fraction=0.2")
    assert points[1].request.settings == (
        "batch_size=50",
        *points[1].settings,
        "validation_fraction=0.2",
    )
    assert points[1].conditions == ("batch_size=50", "validation_fraction=0.2")
    assert {point.teacher.settings for point in points} == {points[1].conditions}
    assert {point.request.seeds for point in points} == {(100, 101)}
    assert {point.recipe for point in points} == {"digits"}
    with pytest.raises(UserError, match="VALIDATION=0: expected a share above 0"):
        tuning.points(REQUEST, 3, 0.0)


def test_the_rows_say_under_which_conditions_all_points_were_tried(tmp_path):
    points = tuning.points(dataclasses.replace(REQUEST, steps=60, network="resnet11"), 1, 0.2)
    rows = tuning.choose(points, {point: ["trial"] for point in points}, tmp_path)
    assert {row.conditions for row in rows} == {
        ("schedule.num_steps=60", "network=resnet11", "batch_size=50", "validation_fraction=0.2")
    }


def chosen(root, *measured, **values):
    """Chooses among points of which each trial has reached so much; None for no result."""
    request = dataclasses.replace(REQUEST, methods=("ieg",), noise_ratios=(0.4,))
    points = tuning.points(request, len(measured), 0.2)
    trials = {}
    for number, (point, accuracies) in enumerate(zip(points, measured, strict=True)):
        trials[point] = [f"trial-{number}-{seed}" for seed in range(len(accuracies))]
        for name, accuracy in zip(trials[point], accuracies, strict=True):
            if accuracy is not None:
                path = trial_folder(root, name) / "result.json"
                put(path, **{"dataset": point.dataset, "accuracy_ema_last": accuracy, **values})
    return tuning.choose(points, trials, root)


def test_the_highest_mean_is_chosen_and_the_first_of_equals(tmp_path):
    rows = chosen(tmp_path, (0.4, 0.6), (0.7, 0.5), (0.6, 0.6))
    assert [row.chosen for row in rows] == [False, True, False]
    assert rows[1].agreements == (70.0, 50.0)
    assert rows[1].mean == 60.0


def test_a_point_without_all_of_its_results_is_not_chosen(tmp_path):
    rows = chosen(tmp_path, (0.4, 0.4), (0.9, None))
    assert [row.chosen for row in rows] == [True, False]
    assert rows[1].agreements == ()


def test_a_long_tail_is_judged_by_the_balanced_agreement(tmp_path):
    rows = chosen(tmp_path, (0.9,), dataset="digits_imbal_0.1", balanced_accuracy_ema_last=0.25)
    assert rows[0].agreements == (25.0,)
