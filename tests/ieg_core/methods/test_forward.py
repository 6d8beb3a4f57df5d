# SPDX-License-Identifier: Apache-2.0
"""Forward's transition matrix and warm-up; its loss by hand on one dense layer."""

import math

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.methods.forward import init, transition_matrix
from ieg_core.methods.method import Update
from ieg_core.recipes import build
from ieg_core.training.measure import synthetic_label_set
from tests.ieg_core.methods.by_hand import (
    IMAGES,
    LABELS,
    assert_gradient,
    cross_entropy,
    logits,
    mean,
    one_step,
    residuals_of,
    softmax,
    tensor,
)


def test_rows_are_distributions_with_a_floor():
    counts = np.array([[8, 1, 0], [0, 0, 0], [5, 0, 4]], np.float32)
    found = np.asarray(transition_matrix(counts, 0.03))
    # (9, 1, 0) / 10, the identity's row for a class that is never predicted, (5, 0, 5) / 10.
    rows = np.array([[0.9, 0.1, 0], [0, 1, 0], [0.5, 0, 0.5]])
    np.testing.assert_allclose(found, 0.97 * rows + 0.01, rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_counts_of_the_true_transition_give_it_back():
    true = np.array([[0.7, 0.3], [0.1, 0.9]])
    found = np.asarray(transition_matrix((1e6 * true).astype(np.float32), 1e-6))
    np.testing.assert_allclose(found, true, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        (["schedule.num_steps=100", "method.warmup_fraction=0.5"], 5),
        (["schedule.num_steps=100", "method.warmup_fraction=0.59"], 5),
        (["schedule.num_steps=5", "method.warmup_fraction=0.5"], 1),
        (["schedule.num_epochs=8", "method.warmup_fraction=0.25"], 2),
        (["schedule.num_epochs=100", "method.warmup_fraction=0.29"], 29),
    ],
)
def test_the_warm_up_is_whole_epochs_and_at_least_one(settings, start):
    # The synthetic set has ten batches.
    config = override(build.build_config(parse("digits"), "forward"), settings)
    state = init(config, synthetic_label_set(config, 10, (8, 8, 1)))
    assert state["start_epoch"] == start
    assert state["counts"].shape == (10, 10)
    assert not state["counts"].any()


@pytest.mark.parametrize("setting", ["warmup_fraction", "transition_floor"])
@pytest.mark.parametrize("value", [0, 1])
def test_settings_out_of_range_are_refused(setting, value):
    config = build.build_config(parse("digits"), "forward")
    with pytest.raises(UserError, match=rf"method\.{setting}"):
        override(config, [f"method.{setting}={value}"])


# N + I has the rows (4, 1) and (0, 2); ε = 0.01.
COUNTS = [[3.0, 1.0], [0.0, 1.0]]
TRANSITION = [[0.99 * 0.8 + 0.005, 0.99 * 0.2 + 0.005], [0.005, 0.995]]


def _forward_step(epoch: float) -> Update:
    state = {"counts": tensor(COUNTS), "start_epoch": tensor(5.0)}
    return one_step("forward", epoch=epoch, method_state=state)


def test_forward_corrects_the_loss_from_its_start_epoch_on():
    update = _forward_step(epoch=5.0)
    probabilities = [softmax(row) for row in logits(IMAGES)]
    # Example 0 was given label 0, example 1 label 1.
    joint = [[probabilities[i][c] * TRANSITION[c][i] for c in range(2)] for i in range(2)]
    np.testing.assert_allclose(
        update.metrics["loss"], mean([-math.log(sum(row)) for row in joint]), rtol=1e-5
    )
    # ∂ℓ/∂z = p − q with the posterior q of the true class.
    halves = [
        [(p - q / sum(row)) / 2 for p, q in zip(probability, row, strict=True)]
        for probability, row in zip(probabilities, joint, strict=True)
    ]
    assert_gradient(update, IMAGES, halves)
    np.testing.assert_array_equal(update.method["counts"], tensor(COUNTS))


@pytest.mark.parametrize(("epoch", "counts"), [(3.0, False), (4.0, True)])
def test_forward_warms_up_on_given_labels_and_counts_in_the_last_epoch(epoch, counts):
    update = _forward_step(epoch)
    rows = logits(IMAGES)
    losses = [cross_entropy(row, label) for row, label in zip(rows, LABELS, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], mean(losses), rtol=1e-6)
    halves = [[value / 2 for value in row] for row in residuals_of(rows, LABELS)]
    assert_gradient(update, IMAGES, halves)
    expected = [list(row) for row in COUNTS]
    if counts:
        for given, row in enumerate(rows):
            expected[row.index(max(row))][given] += 1
        assert expected != COUNTS
    np.testing.assert_array_equal(update.method["counts"], tensor(expected))
