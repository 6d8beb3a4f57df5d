# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from ieg_core.experiment.dataset_spec import parse
from ieg_core.recipes import build
from ieg_core.training.diagnostics import (
    dictionary_diagnostics,
    mean_weight_per_class,
    step_diagnostics,
)
from ieg_core.training.measure import synthetic_label_set


@pytest.fixture
def label_set():
    config = build.build_config(parse("digits_uniform_0.4"), "l2r")
    made = synthetic_label_set(config, 10, (8, 8, 1))
    noisy = made.clean_labels.copy()
    noisy[1] = 7  # example 1 is of class 1
    return dataclasses.replace(made, noisy_labels=noisy)


IDS = np.array([[0, 1], [2, 3]])


def test_weights_by_hand(label_set):
    weights = np.array([[0.5, 0.25], [0.0, 0.25]])
    assert step_diagnostics({"weight": weights}, IDS, label_set) == {
        "clean_share": 0.75,
        "zero_weights": 0.25,
        "weight_on_clean": pytest.approx(0.75),
    }


def test_no_weight_at_all_has_no_share(label_set):
    found = step_diagnostics({"weight": np.zeros((2, 2))}, IDS, label_set)
    assert found == {"clean_share": 0.75, "zero_weights": 1.0}


def test_label_coefficients_and_pseudo_labels_by_hand(label_set):
    pseudo = np.zeros((2, 2, 10))
    for position, guess in {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 1}.items():
        pseudo[position][guess] = 1.0
    examples = {"label_coefficient": np.array([[1.0, 0.0], [1.0, 0.0]]), "pseudo_label": pseudo}
    found = step_diagnostics(examples, IDS, label_set)
    assert found["label_coefficient_on_clean"] == pytest.approx(2 / 3)
    assert found["label_coefficient_on_noisy"] == 0.0
    assert found["pseudo_label_accuracy"] == 0.75
    assert found["most_frequent_pseudo_label"] == 0.5


def test_imbalance_compares_the_rarest_class_with_the_commonest(label_set):
    tail = dataclasses.replace(label_set, spec=parse("digits_imbal_0.05"))
    ids = np.array([[0, 10, 2]])  # given classes 0, 0, 2
    found = step_diagnostics({"weight": np.array([[0.1, 0.3, 0.6]])}, ids, tail)
    assert found["weight_ratio_rare_to_common"] == pytest.approx(0.6 / 0.2)


def test_a_dictionarys_purity_and_repetitions(label_set):
    # Example 1 is wrong; 2 stands there three times and 4 twice: 3 of 7 places repeat.
    found = dictionary_diagnostics(np.array([0, 1, 2, 2, 2, 4, 4]), label_set)
    assert found == {
        "dictionary_purity": pytest.approx(6 / 7),
        "dictionary_repeats": pytest.approx(3 / 7),
        "dictionary_repeated_classes": 2.0,
    }


def test_without_known_labels_nothing_is_said_of_right_and_wrong(label_set):
    mine = dataclasses.replace(label_set, spec=parse("folder_labels"))
    examples = {"weight": np.ones((2, 2)), "label_coefficient": np.ones((2, 2))}
    assert step_diagnostics(examples, IDS, mine) == {"zero_weights": 0.0}
    guessed = {"pseudo_label": np.ones((2, 2, 10))}
    assert step_diagnostics(guessed, IDS, mine) == {"most_frequent_pseudo_label": 1.0}
    assert "dictionary_purity" not in dictionary_diagnostics(np.arange(10), mine)


def test_mean_weight_of_each_class_by_hand(label_set):
    weights = np.zeros(len(label_set.noisy_labels))
    visits = np.zeros(len(weights), np.int32)
    # Labels are 0 … 9 in turn, and example 1 is labeled 7.
    for example, weight in {0: 0.2, 10: 0.4, 1: 0.6, 2: 0.0}.items():
        weights[example], visits[example] = weight, 1
    found = mean_weight_per_class(weights, visits, label_set)
    # The mean over the four is 0.3.
    assert found[0] == pytest.approx(1.0)
    assert found[7] == pytest.approx(2.0)
    assert found[2] == 0.0
    assert found[1] is None
    assert mean_weight_per_class(0 * weights, visits, label_set)[7] == 0.0
