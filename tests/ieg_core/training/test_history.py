# SPDX-License-Identifier: Apache-2.0
import numpy as np

from ieg_core.training import history


def test_means_are_over_visits_and_zero_without_one():
    sums = {
        "visits": np.zeros(4, np.int32),
        "weight": np.zeros(4, np.float32),
    }
    ids = np.array([[0, 1], [1, 2]])
    weights = np.array([[1.0, 2.0], [4.0, 3.0]])
    history.add(sums, ids, {"weight": weights, "pseudo_label": np.ones((2, 2, 5))}, first=0)
    found = history.means(sums)
    assert found["visits"].tolist() == [1, 2, 1, 0]
    assert found["weight"].tolist() == [1.0, 3.0, 3.0, 0.0]
    assert "pseudo_label" not in found  # the averaged parameters' prediction stands for it


def test_losses_and_predictions_are_means_over_the_whole_run():
    sums = {
        "visits": np.zeros(3, np.int32),
        "all_visits": np.zeros(3, np.int32),
        "weight": np.zeros(3, np.float32),
        "given_label_loss": np.zeros(3, np.float32),
        "prediction": np.zeros((3, 2), np.float32),
    }
    ids = np.array([[0, 1], [1, 0]])
    said = {
        "weight": np.array([[1.0, 2.0], [4.0, 3.0]]),
        "given_label_loss": np.array([[1.0, 2.0], [4.0, 3.0]]),
        "prediction": np.array([[[1, 0], [1, 0]], [[0, 1], [1, 0]]], np.float32),
    }
    history.add(sums, ids, said, first=1)  # the first step is before the last epochs
    found = history.means(sums)
    assert found["visits"].tolist() == [1, 1, 0]
    assert found["all_visits"].tolist() == [2, 2, 0]
    assert found["weight"].tolist() == [3.0, 4.0, 0.0]
    assert found["given_label_loss"].tolist() == [2.0, 3.0, 0.0]
    assert found["prediction"].tolist() == [[1, 0], [0.5, 0.5], [0, 0]]


def test_only_the_last_ten_epochs_count():
    assert history.first_step(num_steps=600, steps_per_epoch=14) == 460
    assert history.first_step(num_steps=100, steps_per_epoch=14) == 0
