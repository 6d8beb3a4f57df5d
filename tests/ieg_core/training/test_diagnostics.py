# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.training.diagnostics import weight_diagnostics


def test_weight_mass_by_hand():
    weights = np.array([[0.5, 0.0], [0.25, 0.25]])
    given, clean = np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 0]])
    found = weight_diagnostics(weights, given, clean)
    assert found == {
        "clean_share": 0.75,
        "zero_weights": 0.25,
        "weight_on_clean": pytest.approx(0.75 / 1.0),
    }


def test_no_weight_at_all_has_no_share():
    found = weight_diagnostics(np.zeros((1, 2)), np.array([[0, 1]]), np.array([[0, 0]]))
    assert found == {"clean_share": 0.5, "zero_weights": 1.0}
