# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.audit.measures import average_precision
from ieg_core.audit.posterior import (
    PRIOR_PRECISION,
    estimate_transition,
    label_posterior,
    negative_log_likelihood,
    posterior,
    predict_out_of_fold,
)


def test_the_posterior_by_hand():
    # Given 1: 0.6 · 0.3 = 0.18 against 0.4 · 0.9 = 0.36.
    found = posterior(np.array([[0.6, 0.4]]), np.array([1]), np.array([[0.7, 0.3], [0.1, 0.9]]))
    np.testing.assert_allclose(found, [[1 / 3, 2 / 3]], rtol=1e-9)


def test_the_transition_of_sure_predictions_is_their_counts():
    sure = np.eye(3)[[0, 0, 0, 0, 1, 1]]
    found = estimate_transition(sure, np.array([0, 0, 0, 1, 1, 2]))
    counts = np.array([[3, 1, 0], [0, 1, 1], [0, 0, 0]]) + 1 / 3
    np.testing.assert_allclose(found, counts / [[5], [3], [1]], atol=1e-9)


def test_the_transition_is_a_maximum_of_the_likelihood():
    """No step of any row toward another distribution makes the labels likelier."""
    rng = np.random.default_rng(0)
    predicted = rng.dirichlet(np.full(3, 0.3), 4000)
    true = np.array([rng.choice(3, p=p) for p in predicted])
    wanted = np.array([[0.7, 0.3, 0.0], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]])
    given = np.array([rng.choice(3, p=wanted[c]) for c in true])
    found = estimate_transition(predicted, given)
    np.testing.assert_allclose(found, wanted, atol=0.05)

    def likelihood(transition):
        return np.log((predicted * transition.T[given]).sum(1)).sum()

    for row in range(3):
        for other in np.eye(3):
            moved = found.copy()
            moved[row] = 0.95 * found[row] + 0.05 * other
            # One example's worth of the uniform distribution stands between the two.
            assert likelihood(moved) < likelihood(found) + 0.1


def test_the_gradient_against_finite_differences_in_float64():
    rng = np.random.default_rng(0)
    features, given = rng.normal(size=(40, 5)), rng.integers(0, 4, 40)
    transition = rng.dirichlet(np.ones(4), 4)
    layer, own = rng.normal(size=(6, 4)), rng.normal(size=(40, 4))
    loss, gradient = negative_log_likelihood(layer, features, own, given, transition)
    logits = features @ layer[:-1] + layer[-1] + own
    h = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = -np.log((h * transition.T[given]).sum(1)).sum()
    wanted += PRIOR_PRECISION / 2 * (layer[:-1] ** 2).sum()
    assert loss == pytest.approx(wanted / 40, rel=1e-9)
    for place in np.ndindex(layer.shape):
        step = np.zeros_like(layer)
        step[place] = 1e-6
        ends = [
            negative_log_likelihood(layer + sign * step, features, own, given, transition)[0]
            for sign in (1, -1)
        ]
        assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_no_example_is_predicted_by_what_was_fitted_to_it():
    """With more features than examples a fit knows its own labels, even of pure noise."""
    rng = np.random.default_rng(0)
    features = 30 * rng.normal(size=(200, 400)).astype(np.float32)
    given = rng.integers(0, 2, 200)
    start = np.zeros((5, 401, 2))
    folds = np.arange(200) % 5
    even = np.zeros((200, 2), np.float32)
    held_out, layers = predict_out_of_fold(features, even, given, np.eye(2), folds, start)
    assert 0.35 < (held_out.argmax(1) == given).mean() < 0.65
    assert not start.any()
    fitted_to = folds != 0
    seen = features[fitted_to] @ layers[0][:-1] + layers[0][-1]
    assert (seen.argmax(1) == given[fitted_to]).all()


def clouds(noise, seed=0, examples=3000):
    """Features of four overlapping classes, labels of which some are wrong, and a weak network."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, examples)
    centers = 1.6 * rng.normal(size=(4, 8))
    features = (centers[true] + rng.normal(size=(examples, 8))).astype(np.float32)
    given = np.array([rng.choice(4, p=noise[c]) for c in true])
    distances = ((features[:, None, :3] - centers[:, :3]) ** 2).sum(2)  # sees three of the eight
    own = np.exp(-distances / 2)
    own /= own.sum(1, keepdims=True)
    return features, given, own.astype(np.float32), true


NOISES = {
    "uniform": 0.6 * np.eye(4) + 0.1,
    "asymmetric": np.array([[0.6, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.4, 0.6]]),
}


@pytest.mark.parametrize("noise", NOISES)
def test_it_finds_wrong_labels_better_than_the_network_and_knows_the_noise(noise):
    features, given, own, true = clouds(NOISES[noise])
    wrong, rows = given != true, np.arange(len(given))
    found = label_posterior(features.copy(), given, own, seed=0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    before = average_precision(wrong, 1 - own[rows, given])
    after = average_precision(wrong, 1 - found[rows, given])
    assert before is not None
    assert after is not None
    assert after > before + 0.05
    assert (found.argmax(1) == true).mean() > max((own.argmax(1) == true).mean(), 0.9)
    # About as many labels are wrong as it says, in all and where it doubts a little.
    doubted = 1 - found[rows, given]
    assert doubted.mean() == pytest.approx(wrong.mean(), abs=0.06)
    some = (doubted > 0.1) & (doubted < 0.3)
    assert wrong[some].mean() == pytest.approx(doubted[some].mean(), abs=0.12)
    counts = np.zeros((4, 4))
    np.add.at(counts.T, given, found)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), NOISES[noise], atol=0.06)
    np.testing.assert_array_equal(found, label_posterior(features.copy(), given, own, seed=0))


def test_few_examples_and_absent_classes():
    own = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.5, 0.5, 0.0]], np.float32)
    given = np.array([0, 0, 1])
    few = label_posterior(np.ones((3, 2), np.float32), given, own, seed=0)
    wanted = posterior(own, given, estimate_transition(own, given))
    np.testing.assert_allclose(few, wanted, rtol=1e-6)
    features = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    features[:, 3] = 7  # a dead unit
    many = label_posterior(features, np.tile(given, 20), np.tile(own, (20, 1)), seed=0)
    assert np.isfinite(many).all()
    np.testing.assert_allclose(many.sum(1), 1, atol=1e-5)
