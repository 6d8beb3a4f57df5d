# SPDX-License-Identifier: Apache-2.0
"""Forward's transition matrix and warm-up; its loss and gradient are worked out in test_by_hand."""

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.methods.forward import init, transition_matrix
from ieg_core.recipes import build
from ieg_core.training.measure import synthetic_label_set


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
