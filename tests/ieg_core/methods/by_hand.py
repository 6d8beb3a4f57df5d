# SPDX-License-Identifier: Apache-2.0
"""A network of one dense layer, and what its steps need, in plain Python."""

import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from ieg_core.experiment.config import Config
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.methods import registry
from ieg_core.methods.method import Batch, Forward, Network, State, Update
from ieg_core.methods.mixup import Mixing
from ieg_core.recipes import build

Rows = list[list[float]]
ALPHA, MU, DECAY = 0.1, 0.9, 0.01
KERNEL, BIAS = [[0.0, math.log(3)], [0.5, 0.0]], [0.0, 0.25]
KERNEL_MOMENTUM, BIAS_MOMENTUM = [[0.1, 0.0], [0.0, -0.3]], [0.2, 0.0]
IMAGES, STRONG = [[1.0, 0.0], [0.0, 2.0]], [[0.5, 1.0], [-1.0, 1.0]]
LABELS = [[1.0, 0.0], [0.0, 1.0]]
SOFT_LABELS = [[0.9, 0.1], [0.4, 0.6]]
PROBE, PROBE_LABELS = [[1.0, 1.0], [-1.0, 0.5]], [[0.0, 1.0], [1.0, 0.0]]


def softmax(row: Sequence[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def cross_entropy(row: Sequence[float], label: Sequence[float]) -> float:
    return -sum(y * math.log(p) for y, p in zip(label, softmax(row), strict=True))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def logits(images: Rows, kernel: Rows = KERNEL, bias: Sequence[float] = BIAS) -> Rows:
    return [
        [sum(pixel * kernel[i][c] for i, pixel in enumerate(x)) + bias[c] for c in range(2)]
        for x in images
    ]


def normalized(rows: Rows) -> Rows:
    scale = math.sqrt(mean([value**2 for row in rows for value in row]) + 1e-8)
    return [[value / scale for value in row] for row in rows]


def mixed(rows: Rows, partners: Rows, shares: Sequence[float]) -> Rows:
    return [
        [share * own + (1 - share) * other for own, other in zip(row, partner, strict=True)]
        for row, partner, share in zip(rows, partners, shares, strict=True)
    ]


def slopes(images: Rows, residuals: Rows) -> tuple[Rows, list[float]]:
    """Returns Σ h ⊗ r and Σ r: the gradient of a sum of losses for kernel and bias."""
    pairs = list(zip(images, residuals, strict=True))
    kernel = [[sum(x[i] * r[c] for x, r in pairs) for c in range(2)] for i in range(2)]
    return kernel, [sum(r[c] for _, r in pairs) for c in range(2)]


def decayed(kernel_slope: Rows, kernel: Rows = KERNEL) -> Rows:
    return [[kernel_slope[i][c] + DECAY * kernel[i][c] for c in range(2)] for i in range(2)]


def looked_ahead(images: Rows, residuals: Rows) -> tuple[Rows, list[float]]:
    """Returns θ − α (μ·m + ∇[Σ ℓ_i / 2 + R])."""
    halves = [[value / 2 for value in row] for row in residuals]
    kernel_slope, bias_slope = slopes(images, halves)
    kernel_slope = decayed(kernel_slope)
    kernel = [
        [KERNEL[i][c] - ALPHA * (MU * KERNEL_MOMENTUM[i][c] + kernel_slope[i][c]) for c in range(2)]
        for i in range(2)
    ]
    bias = [BIAS[c] - ALPHA * (MU * BIAS_MOMENTUM[c] + bias_slope[c]) for c in range(2)]
    return kernel, bias


def residuals_of(rows: Rows, labels: Rows) -> Rows:
    return [
        [p - y for p, y in zip(softmax(row), label, strict=True)]
        for row, label in zip(rows, labels, strict=True)
    ]


def probe_product(
    images: Rows, lookahead: tuple[Rows, list[float]], probe_labels: Rows = PROBE_LABELS
) -> Rows:
    """Returns dz of the batch along ∇P(θ̂), P the mean probe loss with R."""
    halves = [
        [value / 2 for value in row]
        for row in residuals_of(logits(PROBE, *lookahead), probe_labels)
    ]
    kernel_slope, bias_slope = slopes(PROBE, halves)
    return logits(images, decayed(kernel_slope, lookahead[0]), bias_slope)


def clipped(meta_gradient: Sequence[float]) -> list[float]:
    helpful = [max(0.0, -slope) for slope in meta_gradient]
    return [value / (sum(helpful) + 1e-5) for value in helpful]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def tensor(values: object) -> object:
    return ops.convert_to_tensor(np.asarray(values, np.float32))


def images_of(rows: Rows) -> object:
    return ops.reshape(tensor(rows), (len(rows), 1, 2, 1))


def one_step(
    method: str,
    settings: Sequence[str] = (),
    mixing: Mixing | None = None,
    epoch: float = 5.0,
    method_state: dict | None = None,
) -> Update:
    """Makes one step of a method with the numbers above."""

    def forward(params: Sequence, stats: Sequence, images: object) -> Forward:
        features = ops.reshape(images, (-1, 2))
        return Forward(features @ params[0] + params[1], features, stats)

    config: Config = override(build.build_config(parse("digits_uniform_0.4"), method), settings)
    state = State(
        [tensor(KERNEL), tensor(BIAS)],
        [tensor(KERNEL_MOMENTUM), tensor(BIAS_MOMENTUM)],
        [],
        method_state or {},
    )
    batch = Batch(
        ids=ops.convert_to_tensor(np.array([3, 1], np.int32)),
        images=images_of(IMAGES),
        strong_images=images_of(STRONG),
        labels=tensor(LABELS),
        soft_labels=tensor(SOFT_LABELS),
        probe_images=images_of(PROBE),
        probe_labels=tensor(PROBE_LABELS),
        mixing=mixing,
        epoch=tensor(epoch),
        size=2,
        probe_size=2,
    )
    return registry.find(method).update(
        Network(forward, [True, False], DECAY, dense=(0, 1)), config, state, batch
    )


def assert_gradient(update: Update, images: Rows, residuals: Rows) -> None:
    """Checks the update's gradient against Σ h ⊗ r, with R's share on the kernel alone."""
    kernel_slope, bias_slope = slopes(images, residuals)
    np.testing.assert_allclose(update.gradients[0], decayed(kernel_slope), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(update.gradients[1], bias_slope, rtol=1e-5, atol=1e-6)
