# SPDX-License-Identifier: Apache-2.0
"""A classifier on features, trained on soft labels with MixUp: "retrain".

Its targets are the posterior's q, in which a wrong label has almost no weight. Each step forms

    x̃ = β x_i + (1 − β) x_j,   q̃ = β q_i + (1 − β) q_j,   β ~ Beta(α, α) for each pair

and minimizes −Σ_c q̃(c) log p_c(x̃) with Adam, decoupled weight decay and a half-cosine learning
rate schedule that ends at 0.

References: Zhang et al., ICLR 2018 (arXiv:1710.09412); Loshchilov and Hutter, ICLR 2019
(arXiv:1711.05101), algorithm 2.

Instead of soft targets, the head can be trained on evidence E_i(c), as in
`ieg_core.features.linear`: the probability of what was observed for example i if its class is c.
The loss is then −log Σ_c p_c(x_i) E_i(c).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ieg_core.draws.generator import generator
from ieg_core.errors import UserError, require
from ieg_core.features.linear import TINY

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


@dataclass(frozen=True)
class HeadSettings:
    """Hyperparameters of a head.

    Attributes:
      hidden: Units of the hidden layer (ReLU); 0 for a linear classifier.
      epochs: Passes through the examples.
      batch_size: Examples per step.
      learning_rate: Initial learning rate.
      weight_decay: λ of the decay, scaled by the learning rate at each step.
      mixup_alpha: α; 0 for no MixUp.
    """

    hidden: int = 256
    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    mixup_alpha: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("hidden", 0), ("epochs", 1), ("batch_size", 1)):
            value = getattr(self, name)
            require(value >= least, name, value, f"at least {least}")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        for name in ("weight_decay", "mixup_alpha"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")


@dataclass(frozen=True)
class Head:
    """A trained head.

    Attributes:
      layers: Kernel and bias of each layer, float32.
    """

    layers: Sequence[NDArray[np.float32]]

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns p, float32 [m, C], for features, float32 [m, d]."""
        return _forward(self.layers, features)[-1]


def train_head(
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    settings: HeadSettings | None = None,
    *,
    seed: int = 0,
    is_evidence: bool = False,
    steps: int = 0,
    on_step: Callable[[int, float, Sequence[np.ndarray]], None] | None = None,
) -> Head:
    """Trains a head on soft labels, or on evidence.

    Args:
      features: float32 [n, d], with variance around 1.
      targets: q, float32 [n, C], rows summing to 1; or E.
      settings: Hyperparameters; by default `HeadSettings()`.
      seed: Seed of the initial values, the order and MixUp.
      is_evidence: Whether `targets` is E, which disables MixUp.
      steps: Total steps; 0 to use the epochs in `settings`.
      on_step: Called after each step with the steps done, the step's loss, and the layers, which
        the next step modifies in place.

    Returns:
      The head.

    Raises:
      UserError: When features and targets do not have the same number of rows.
    """
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets):
        raise UserError(
            f"received features {features.shape} and targets {targets.shape}: expected [n, d] and "
            "[n, C] with the same n"
        )
    how = settings or HeadSettings()
    size = min(how.batch_size, len(features))
    steps_per_epoch = len(features) // size
    layers = _initial_layers(features.shape[1], targets.shape[1], how.hidden, seed)
    moments = [(np.zeros_like(each), np.zeros_like(each)) for each in layers]
    last = steps or how.epochs * steps_per_epoch
    for step in range(last):
        epoch, place = divmod(step, steps_per_epoch)
        if not place:
            rng = generator(seed, "head", epoch)
            order, partners = rng.permutation(len(features)), rng.permutation(len(features))
        chosen = slice(place * size, (place + 1) * size)
        rows, others = order[chosen], partners[chosen]
        x, q = features[rows], targets[rows]
        if how.mixup_alpha and not is_evidence:
            share = rng.beta(how.mixup_alpha, how.mixup_alpha, (size, 1)).astype(np.float32)
            x = share * x + (1 - share) * features[others]
            q = share * q + (1 - share) * targets[others]
        loss, gradients = loss_and_gradients(layers, x, q, is_evidence=is_evidence)
        rate = how.learning_rate * 0.5 * (1 + math.cos(math.pi * step / last))
        _adam_step(layers, gradients, moments, step + 1, rate, how.weight_decay)
        if on_step is not None:
            on_step(step + 1, loss, layers)
    return Head(tuple(layers))


def loss_and_gradients(
    layers: Sequence[np.ndarray],
    features: np.ndarray,
    targets: np.ndarray,
    *,
    is_evidence: bool = False,
) -> tuple[float, list[np.ndarray]]:
    """Returns the mean cross-entropy against soft targets, and its gradient for each parameter.

    The derivative of −log Σ_c p_c E(c) with respect to logit c is p_c − q(c), with q(c) ∝ p_c E(c),
    which is the derivative of the cross-entropy against q.

    Args:
      layers: Kernel and bias of each layer; ReLU between layers.
      features: Float [m, d].
      targets: q, float [m, C]; or E.
      is_evidence: Whether `targets` is E.
    """
    activations = _forward(layers, features)
    predicted = activations[-1]
    tiny = predicted.dtype.type(TINY)
    if is_evidence:
        joint = predicted * targets + tiny
        likelihood = joint.sum(1, keepdims=True)
        loss, targets = -float(np.log(likelihood).mean()), joint / likelihood
    else:
        loss = -float(np.sum(targets * np.log(predicted + tiny))) / len(targets)
    errors = (predicted * targets.sum(1, keepdims=True) - targets) / len(targets)
    gradients: list[np.ndarray] = []
    for layer in range(len(layers) // 2 - 1, -1, -1):
        inputs = activations[layer]
        gradients[:0] = [inputs.T @ errors, errors.sum(0)]
        if layer:
            errors = (errors @ layers[2 * layer].T) * (inputs > 0)
    return loss, gradients


def _forward(layers: Sequence[np.ndarray], features: np.ndarray) -> list[np.ndarray]:
    """Returns the input of each layer, followed by p."""
    activations = [features]
    for layer in range(0, len(layers), 2):
        x = activations[-1] @ layers[layer] + layers[layer + 1]
        if layer + 2 < len(layers):
            x = np.maximum(x, 0)
        else:
            x = np.exp(x - x.max(1, keepdims=True))
            x /= x.sum(1, keepdims=True)
        activations.append(x)
    return activations


def _initial_layers(inputs: int, classes: int, hidden: int, seed: int) -> list[np.ndarray]:
    """Draws the hidden kernel by He initialization; the last layer starts at 0."""
    layers: list[np.ndarray] = []
    if hidden:
        rng = generator(seed, "head initial values")
        kernel = rng.standard_normal((inputs, hidden)) * math.sqrt(2 / inputs)
        layers += [kernel.astype(np.float32), np.zeros(hidden, np.float32)]
    return [*layers, np.zeros((hidden or inputs, classes), np.float32),
            np.zeros(classes, np.float32)]  # fmt: skip


def _adam_step(
    layers: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
    moments: Sequence[tuple[np.ndarray, np.ndarray]],
    step: int,
    rate: float,
    decay: float,
) -> None:
    first, second = _BETAS
    scale = math.sqrt(1 - second**step) / (1 - first**step)
    for layer, gradient, (mean, square) in zip(layers, gradients, moments, strict=True):
        mean += (1 - first) * (gradient - mean)
        square += (1 - second) * (gradient * gradient - square)
        if layer.ndim == 2:  # biases do not decay
            layer -= rate * decay * layer
        layer -= rate * scale * mean / (np.sqrt(square) + _EPSILON)
