# SPDX-License-Identifier: Apache-2.0
"""Two models of IEG's early collapse that need no network: the tables of docs/early-collapse.md.

    .venv/bin/python -m scripts.early_collapse --data-dir data

The first follows the mean gradient of the losses, with one vector of logits for each true class.
The second trains the dense layer alone, on fixed random features of real images. Both have one
view of each image and no look-ahead, the second no MixUp either.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from ieg_core.data.open import open_source
from ieg_core.host.program import Parser, program

Array = np.ndarray[Any, np.dtype[Any]]
CLASSES = 10
TRUST = 0.88
"""Mean λ* in the collapsed state, as measured."""
MIX_SHARE = 0.82
"""Mean MixUp coefficient."""


def sharpened(logits: Array, *, centered: bool = False) -> Array:
    """Returns the pseudo-labels of one view with T = ½, [B, C]."""
    if centered:
        logits = logits - logits.mean(0)
    guess = softmax(normalized(logits)[0], axis=-1) ** 2
    return guess / guess.sum(-1, keepdims=True)


def normalized(logits: Array) -> tuple[Array, float]:
    """Returns n(z) and r = √mean(z²)."""
    scale = float(np.sqrt((logits**2).mean() + 1e-8))
    return logits / scale, scale


def normalized_slope(logits: Array, targets: Array) -> Array:
    """Returns B times the gradient of the mean cross-entropy of n(z) and targets, [B, C]."""
    unit, scale = normalized(logits)
    residual = softmax(unit, axis=-1) - targets
    return (residual - unit * (unit * residual).mean()) / scale


def consensus(spread: float = 0.02) -> Array:
    """Returns logits [C, C] of all classes that are one class's up to a random spread."""
    logits = np.full((CLASSES, CLASSES), -1 / 3)
    logits[:, 0] = 3.0
    return 0.4 * logits + spread * np.random.default_rng(0).standard_normal(logits.shape)


def mean_flow(
    weight: float, noise: float, right_weight: float, carried: float, steps: int = 2500
) -> float:
    """Follows the mean gradient from a consensus.

    Args:
      weight: p.
      noise: Rate of uniform noise.
      right_weight: Share of the example weights w on right labels.
      carried: γ, the share of the clean labels' pull that carries over to other images.
      steps: Steps of 0.05.

    Returns:
      The share of classes whose pseudo-label is right in the end.
    """
    logits, own = consensus(), np.eye(CLASSES)
    even = np.full_like(own, 1 / CLASSES)
    given = (1 - noise) * own + noise * even
    weighted = right_weight * own + (1 - right_weight) * (1 - own) / (CLASSES - 1)
    clean = carried * own + (1 - carried) * even
    for _ in range(steps):
        guess = sharpened(logits)
        relabeled = TRUST * given + (1 - TRUST) * guess
        targets = 0.9 * weighted + 0.1 * guess
        partner = clean.mean(0) / 3 + 2 * guess.mean(0) / 3
        mixed = [MIX_SHARE * label + (1 - MIX_SHARE) * partner for label in (clean, guess)]
        slope = softmax(logits, axis=-1) - 0.5 * (relabeled + targets)
        slope += normalized_slope(logits, mixed[0]) + weight * normalized_slope(logits, mixed[1])
        logits = logits - 0.05 * slope
    return float((logits.argmax(1) == np.arange(CLASSES)).mean())


def largest_weight(noise: float, right_weight: float, carried: float) -> float:
    """Returns the largest p up to 8, to 0.05, with which `mean_flow` leaves the consensus."""
    low, high = 0.0, 8.0
    while high - low > 0.05:
        middle = (low + high) / 2
        leaves = mean_flow(middle, noise, right_weight, carried) > 0.5
        low, high = (middle, high) if leaves else (low, middle)
    return low


@dataclass(frozen=True)
class Features:
    """Fixed features of images of 8 × 8 pixels.

    Attributes:
      values: [n, F], of mean square 10/F.
      labels: True labels [n].
    """

    values: Array
    labels: Array


def random_features(base: str, data_dir: Path, count: int = 6000, size: int = 128) -> Features:
    """Computes ReLU features with random weights of the first images of a data set.

    Args:
      base: "digits" or "cifar10".
      data_dir: The folder with cifar-10-batches-bin/.
      count: Number of images, at most all.
      size: Number of features.

    Returns:
      Features float64 [n, size] of images averaged to 8 × 8 pixels, and their labels.
    """
    source = open_source(base, data_dir)
    ids = np.arange(min(count, len(source.train_labels)))
    images = source.train_images(ids) / 255.0
    side = images.shape[1] // 8
    images = images.reshape(len(ids), 8, side, 8, side, -1).mean((2, 4)).reshape(len(ids), -1)
    images = (images - images.mean(0)) / (images.std(0) + 0.1) * 0.4 + 0.5
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((images.shape[1], size)) / np.sqrt(images.shape[1])
    values = np.maximum(images @ kernel, 0.0)
    values *= np.sqrt(10 / (values**2).sum(1).mean())
    return Features(values, source.train_labels[ids])


def train_dense(
    features: Features,
    weight: float,
    noise: float,
    *,
    steps: int = 600,
    centered: bool = False,
    head_start: float = 0.0,
) -> tuple[float, float]:
    """Trains a dense layer by the losses of `ieg_no_lookahead` with k = 0, with 100 clean labels.

    Args:
      features: The features.
      weight: p.
      noise: Rate of uniform noise.
      steps: Steps of momentum SGD with a rate of 0.1.
      centered: `IEGSettings.centered_pseudo_labels`.
      head_start: The first class's bias at the start: above 0 it starts from a consensus.

    Returns:
      The share of right pseudo-labels in the end, and the share of the most frequent class.
    """
    rng = np.random.default_rng(0)
    count, size = features.values.shape
    order, one_hot = rng.permutation(count), np.eye(CLASSES)
    labels = features.labels
    probe = np.concatenate([order[labels[order] == c][:10] for c in range(CLASSES)])
    train = np.setdiff1d(order, probe)
    redrawn = rng.random(count) < noise
    given = one_hot[np.where(redrawn, rng.integers(0, CLASSES, count), labels)]
    inputs = np.column_stack([features.values, np.ones(count)])
    kernel = rng.standard_normal((size + 1, CLASSES)) * np.sqrt(2 / (size + CLASSES))
    kernel[-1] = 0.0
    kernel[-1, 0] = head_start
    momentum = np.zeros_like(kernel)
    for _ in range(steps):
        ids = rng.choice(train, 100, replace=False)
        batch = inputs[ids]
        logits = batch @ kernel
        guess = sharpened(logits, centered=centered)
        slope = softmax(logits, axis=-1) - 0.9 * given[ids] - 0.1 * guess
        slope += weight * normalized_slope(logits, guess)
        clean = normalized_slope(inputs[probe] @ kernel, one_hot[labels[probe]])
        gradient = (batch.T @ slope + inputs[probe].T @ clean) / 100 + 2e-4 * kernel
        momentum = 0.9 * momentum + gradient
        kernel = kernel - 0.1 * momentum
    guessed = (inputs[train] @ kernel).argmax(1)
    shares = np.bincount(guessed, minlength=CLASSES) / len(train)
    return float((guessed == labels[train]).mean()), float(shares.max())


@program("early-collapse")
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints both tables."""
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    data_dir = parser.parse_args(arguments).data_dir
    print("| noise | w | γ = 0 | 0.25 | 0.5 | 1 |\n|---|---|---|---|---|---|")
    for noise, right in ((0.8, 0.28), (0.8, 0.5), (0.8, 0.78), (0.4, 0.64), (0.4, 0.84)):
        found = [largest_weight(noise, right, carried) for carried in (0.0, 0.25, 0.5, 1.0)]
        print(f"| {noise} | {right} | {' | '.join(f'{p:.1f}' for p in found)} |")
    choices = [(p, False) for p in (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)] + [(5.0, True), (8.0, True)]
    names = [f"p = {p:g}{', centered' * centered}" for p, centered in choices]
    print(f"\n| data | noise | start | {' | '.join(names)} |\n|{'---|' * (3 + len(names))}")
    for base in ("digits", "cifar10"):
        features = random_features(base, data_dir)
        for noise in (0.8, 0.4):
            for start, bias in (("random", 0.0), ("consensus", 3.0)):
                pairs = [
                    train_dense(features, p, noise, centered=centered, head_start=bias)
                    for p, centered in choices
                ]
                row = " | ".join(f"{100 * right:.0f}, {100 * top:.0f}" for right, top in pairs)
                print(f"| {base} | {noise} | {start} | {row} |")


if __name__ == "__main__":
    sys.exit(main())
