# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.features.linear import NO_FOLD, fit, loss_and_gradient, predict


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(40, 3))
    evidence = rng.random((40, 4))
    folds = rng.integers(-1, 2, 40)
    return features, evidence, folds, np.array([0.5, 2.0, 3.0]), rng.normal(size=(2, 4, 4))


def test_the_gradient_is_that_of_finite_differences(problem):
    features, evidence, folds, precision, layers = problem
    _, gradient = loss_and_gradient(layers, features, evidence, folds, precision)
    step = 1e-5
    for index in np.ndindex(layers.shape):
        moved = [layers.copy(), layers.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        up, down = (loss_and_gradient(each, *problem[:-1])[0] for each in moved)
        np.testing.assert_allclose(gradient[index], (up - down) / (2 * step), atol=1e-8)


def test_the_loss_by_hand():
    """One feature, two classes, logits (1, 0): p = (e, 1)/(e + 1); each fold without its own.

    Example 0 (x = 1, fold 0) is seen by fit 1 alone, whose W is (0, 0): p = (½, ½), and
    E = (0.9, 0.2): −log 0.55. Example 1 (x = 1, no fold) is seen by both, E = (0, 1):
    −log 1/(e + 1) − log ½. The prior: ½ · 3 · 1². All of it over two examples.
    """
    layers = np.zeros((2, 2, 2))
    layers[0, 0] = 1, 0
    loss, _ = loss_and_gradient(
        layers,
        np.ones((2, 1)),
        np.array([[0.9, 0.2], [0.0, 1.0]]),
        np.array([0, NO_FOLD]),
        np.array([3.0]),
    )
    expected = -np.log(0.55) - np.log(1 / (np.e + 1)) - np.log(0.5) + 1.5
    np.testing.assert_allclose(loss, expected / 2, rtol=1e-9)


def test_a_fit_does_not_see_its_fold():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 2)).astype(np.float32)
    folds = np.arange(60) % 2
    evidence = np.eye(2, dtype=np.float32)[(features[:, 0] > 0).astype(int)]
    arguments = folds, np.ones(2), np.zeros((2, 3, 2))
    layers = fit(features, evidence, *arguments)
    other = evidence.copy()
    other[folds == 0] = other[folds == 0][:, ::-1]
    changed = fit(features, other, *arguments)
    own = folds == 0
    np.testing.assert_allclose(
        predict(layers, features, folds)[own], predict(changed, features, folds)[own], atol=2e-2
    )
    assert (predict(layers, features, folds).argmax(1) == evidence.argmax(1)).mean() > 0.85
    assert (predict(changed, features, folds).argmax(1) == evidence.argmax(1))[~own].mean() < 0.2


def test_without_a_fold_the_mean_of_all_fits_predicts(problem):
    features, _, folds, _, layers = problem
    nowhere = predict(layers, features, np.full(40, NO_FOLD))
    each = [predict(layers, features, np.full(40, fold)) for fold in (0, 1)]
    np.testing.assert_allclose(nowhere, (each[0] + each[1]) / 2)
    mixed = predict(layers, features, folds)
    np.testing.assert_allclose(mixed[folds == 1], each[1][folds == 1])
