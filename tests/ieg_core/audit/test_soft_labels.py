# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from ieg_core.audit.posterior import estimate_transition, posterior
from ieg_core.audit.soft_labels import judge
from ieg_core.experiment.dataset_spec import parse
from ieg_core.recipes import build
from ieg_core.training.measure import synthetic_label_set


@pytest.fixture
def label_set():
    """A hundred examples of three classes, the first 30 of them the probe; a fifth is wrong."""
    config = build.build_config(parse("digits_uniform_0.4"), "l2r")
    whole = synthetic_label_set(config, 10, (8, 8, 1))
    given = whole.noisy_labels.copy()
    given[::5] = (given[::5] + 1) % 10
    return dataclasses.replace(whole, noisy_labels=given)


def distributions(label_set, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(10), len(label_set.noisy_labels)).astype(np.float32)


def test_a_run_with_a_posterior_hands_it_on_and_its_probe_is_clean(label_set):
    q = distributions(label_set)
    found = judge(label_set, {"label_posterior": q, "final_prediction": q[::-1]})
    np.testing.assert_array_equal(found[label_set.train_ids], q[label_set.train_ids])
    clean = np.eye(10)[label_set.clean_labels[label_set.probe_ids]]
    np.testing.assert_array_equal(found[label_set.probe_ids], clean)
    assert found.dtype == np.float32


@pytest.mark.parametrize("name", ["prediction", "final_prediction"])
def test_predictions_become_a_posterior_by_the_estimated_noise(label_set, name):
    p, ids = distributions(label_set), label_set.train_ids
    given = label_set.noisy_labels[ids]
    expected = posterior(p[ids].astype(float), given, estimate_transition(p[ids], given))
    np.testing.assert_allclose(judge(label_set, {name: p})[ids], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["label_posterior", "prediction"])
def test_clean_labels_of_the_noisy_set_decide_nothing(label_set, name):
    examples = {name: distributions(label_set)}
    permuted = label_set.clean_labels.copy()
    permuted[label_set.train_ids] = permuted[label_set.train_ids][::-1]
    other = dataclasses.replace(label_set, clean_labels=permuted)
    assert (permuted != label_set.clean_labels).any()
    assert judge(other, examples).tobytes() == judge(label_set, examples).tobytes()
