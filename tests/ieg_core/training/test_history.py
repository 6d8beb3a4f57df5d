# SPDX-License-Identifier: Apache-2.0
import numpy as np

from ieg_core.training import history


def test_means_are_over_visits_and_zero_without_one():
    sums = {
        "visits": np.zeros(4, np.int32),
        "weight": np.zeros(4, np.float32),
        "pseudo_label": np.zeros((4, 2), np.float32),
    }
    ids = np.array([[0, 1], [1, 2]])
    pseudo = np.array([[[1, 0], [1, 0]], [[0, 1], [0, 1]]], np.float32)
    history.add(sums, ids, {"weight": np.array([[1.0, 2.0], [4.0, 3.0]]), "pseudo_label": pseudo})
    found = history.means(sums)
    assert found["visits"].tolist() == [1, 2, 1, 0]
    assert found["weight"].tolist() == [1.0, 3.0, 3.0, 0.0]
    assert found["pseudo_label"].tolist() == [[1, 0], [0.5, 0.5], [0, 1], [0, 0]]


def test_only_the_last_ten_epochs_count():
    assert history.first_step(num_steps=600, steps_per_epoch=14) == 460
    assert history.first_step(num_steps=100, steps_per_epoch=14) == 0
