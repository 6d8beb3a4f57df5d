# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.features.head import HeadSettings, loss_and_gradients, train_head


@pytest.mark.parametrize("is_evidence", [False, True])
@pytest.mark.parametrize("hidden", [0, 5])
def test_gradients_are_those_of_finite_differences(hidden, is_evidence):
    def measured():
        return loss_and_gradients(layers, features, targets, is_evidence=is_evidence)

    rng = np.random.default_rng(0)
    shapes = [(3, 5), (5,), (5, 4), (4,)] if hidden else [(3, 4), (4,)]
    layers = [rng.normal(size=shape) for shape in shapes]
    features, targets = rng.normal(size=(7, 3)), rng.dirichlet(np.ones(4), 7)
    _, gradients = measured()
    step = 1e-6
    for layer, gradient in zip(layers, gradients, strict=True):
        for index in np.ndindex(layer.shape):
            kept = layer[index]
            losses = []
            for moved in (kept + step, kept - step):
                layer[index] = moved
                losses.append(measured()[0])
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


def test_the_loss_of_evidence_by_hand():
    """Logits 0: p = (½, ½); −log(½·0.9 + ½·0.3) = −log 0.6; q = (¾, ¼)."""
    layers = [np.zeros((2, 2)), np.zeros(2)]
    loss, (_, bias) = loss_and_gradients(
        layers, np.array([[1.0, 2.0]]), np.array([[0.9, 0.3]]), is_evidence=True
    )
    np.testing.assert_allclose(loss, -np.log(0.6))
    np.testing.assert_allclose(bias, [-0.25, 0.25])


def test_steps_may_end_within_an_epoch_and_each_is_told():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(64, 4)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[(features[:, 0] > 0).astype(int)]
    told = []
    settings = HeadSettings(hidden=0, batch_size=16, mixup_alpha=0, learning_rate=0.1)
    head = train_head(
        features,
        targets,
        settings,
        steps=6,
        on_step=lambda step, loss, layers: told.append((step, loss, layers[0].copy())),
    )
    assert [step for step, _, _ in told] == [1, 2, 3, 4, 5, 6]
    assert told[0][1] == pytest.approx(np.log(2), rel=1e-5)
    assert told[-1][1] < told[0][1]
    np.testing.assert_array_equal(told[-1][2], head.layers[0])


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
