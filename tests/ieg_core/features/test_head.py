# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.features.head import HeadSettings, loss_and_gradients, train_head


@pytest.mark.parametrize("hidden", [0, 5])
def test_gradients_are_those_of_finite_differences(hidden):
    rng = np.random.default_rng(0)
    shapes = [(3, 5), (5,), (5, 4), (4,)] if hidden else [(3, 4), (4,)]
    layers = [rng.normal(size=shape) for shape in shapes]
    features, targets = rng.normal(size=(7, 3)), rng.dirichlet(np.ones(4), 7)
    _, gradients = loss_and_gradients(layers, features, targets)
    step = 1e-6
    for layer, gradient in zip(layers, gradients, strict=True):
        for index in np.ndindex(layer.shape):
            kept = layer[index]
            losses = []
            for moved in (kept + step, kept - step):
                layer[index] = moved
                losses.append(loss_and_gradients(layers, features, targets)[0])
            layer[index] = kept
            difference = (losses[0] - losses[1]) / (2 * step)
            np.testing.assert_allclose(gradient[index], difference, atol=1e-7)


def test_the_loss_by_hand():
    """Logits 0: p = (½, ½); −(0.3 log ½ + 0.7 log ½) = log 2."""
    layers = [np.zeros((2, 2)), np.zeros(2)]
    loss, (kernel, bias) = loss_and_gradients(
        layers, np.array([[1.0, 2.0]]), np.array([[0.3, 0.7]])
    )
    np.testing.assert_allclose(loss, np.log(2))
    np.testing.assert_allclose(bias, [0.2, -0.2])
    np.testing.assert_allclose(kernel, [[0.2, -0.2], [0.4, -0.4]])


@pytest.mark.parametrize("hidden", [0, 16])
def test_a_head_learns_soft_labels_and_a_seed_repeats_it(hidden):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(600, 4)).astype(np.float32)
    classes = (features[:, 0] > 0).astype(int) + 2 * (features[:, 1] > 0)
    targets = (0.7 * np.eye(4) + 0.075)[classes].astype(np.float32)
    settings = HeadSettings(hidden=hidden, batch_size=64, epochs=20, learning_rate=0.01)
    head = train_head(features, targets, settings, seed=3)
    assert (head.predict(features).argmax(1) == classes).mean() > 0.93
    again = train_head(features, targets, settings, seed=3)
    other = train_head(features, targets, settings, seed=4)
    np.testing.assert_array_equal(head.layers[0], again.layers[0])
    assert np.abs(head.layers[0] - other.layers[0]).max() > 1e-4


def test_other_settings_are_refused():
    with pytest.raises(UserError, match="epochs must be at least 1, got 0"):
        HeadSettings(epochs=0)
    with pytest.raises(UserError, match=r"features \(3, 2\) and targets \(4, 2\)"):
        train_head(np.zeros((3, 2), np.float32), np.zeros((4, 2), np.float32))
