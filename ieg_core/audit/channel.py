# SPDX-License-Identifier: Apache-2.0
"""The channel between an image's class and its given labels, estimated from given labels alone.

Out-of-fold predictions p of a classifier are usually too flat or too sharp, and given labels are
sometimes wrong. Both are described by one model, with a sharpness β (an inverse temperature) and a
transition matrix T_a for each annotator a:

    p̂_c(x) ∝ p_c(x)^β,     ℓ(β, T) = Σ_i log Σ_c p̂_c(x_i) Π_a T_a[c, y_ia]

ℓ is the log-likelihood of labels that p has not seen. It is what every choice is made by. β and T
maximize it by generalized EM:

    E   q_i(c) ∝ p̂_c(x_i) Π_a T_a[c, y_ia]
    M   N_a[c, k] = Σ_{i: y_ia = k} q_i(c)
        T_a[c, k] = (s P[c, k] + N_a[c, k]) / (s + Σ_k N_a[c, k])
        β ← β + Σ_i (E_q log p − E_p̂ log p) / Σ_i Var_p̂ log p       (a Newton step)

Without β, a flat p leaves the disagreement between p and the labels to T or a sharp T to p, and the
expected number of wrong labels is far from the true one. P is the symmetric channel,

    P[c, c] = 1 − ε,   P[c, k] = ε / (C − 1),   ε = (1 + Σ_a Σ_c Σ_{k≠c} N_a[c, k]) / (2 + Σ N)

for one annotator. For several it is their common matrix, itself shrunk toward that channel, so that
an annotator with few labels is treated as average. The strength s, in examples, is the one with the
highest leave-one-out likelihood: ℓ with N_a less the example's own count. Few images therefore get
a symmetric channel, and many get T as counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.features.linear import TINY

MISSING: Final = -1
STRENGTHS: Final = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
"""s to choose from."""

_STEPS: Final = 100
_TOLERANCE: Final = 3e-6
# The strength is chosen again while q improves, but not until the end, since EM must converge.
_STRENGTH_STEPS: Final = (0, 5, 15)
_NEWTON_STEPS: Final = 30
_SHARPNESS_TOLERANCE: Final = 1e-3
_BISECTIONS: Final = 10
_FIRST_ERROR_RATE: Final = 0.1
_SHARPNESS_RANGE: Final = (0.05, 30.0)
_NEVER: Final = -1e4


@dataclass(frozen=True)
class Votes:
    """Labels, and what is known about the classes.

    Attributes:
      labels: int64 [n, a]; `MISSING` for a missing label.
      trusted: Known classes, int64 [n]; `MISSING` elsewhere.
      trusted_weight: Weight of a trusted example in T, in examples.
      num_classes: C.
    """

    labels: NDArray[np.int64]
    trusted: NDArray[np.int64]
    trusted_weight: float
    num_classes: int


@dataclass(frozen=True)
class Channel:
    """A sharpness and transition matrices, and the likelihood that they reach.

    Attributes:
      sharpness: β.
      transitions: T_a[true, observed] of each annotator, float64 [a, C, C].
      likelihood: ℓ per example that has a label or a known class.
    """

    sharpness: float
    transitions: NDArray[np.float64]
    likelihood: float


def estimate_channel(
    predicted: NDArray[np.float32],
    votes: Votes,
    transitions: NDArray[np.float64] | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Channel:
    """Estimates β and T by generalized EM.

    Args:
      predicted: p, out of fold, float32 [n, C].
      votes: The labels.
      transitions: T to start from; by default the symmetric channel with ε = 0.1.
      strengths: s to choose from.

    Returns:
      The channel.
    """
    classes = votes.num_classes
    if transitions is None:
        prior = _symmetric(classes, _FIRST_ERROR_RATE)
        transitions = np.repeat(prior[None], votes.labels.shape[1], 0)
    # Classes before examples, so that sums over classes run along whole rows of memory.
    logs = np.log(predicted.T + np.float32(TINY))
    is_voted = (votes.labels != MISSING).any(1) | (votes.trusted != MISSING)
    count = int(is_voted.sum())
    sharpness, strength, before = 1.0, strengths[0], -np.inf
    for step in range(_STEPS):
        tempered, q, likelihood = _expect(logs, sharpness, votes, transitions)
        likelihood /= count
        if step > _STRENGTH_STEPS[-1] and likelihood - before < _TOLERANCE:
            break
        before = likelihood
        counts = _counts(q, votes)
        if step in _STRENGTH_STEPS:
            strength = _best_strength(tempered, q, counts, votes, strengths)
        transitions, _ = _shrink(counts, strength)
        sharpness = _sharpened(logs, sharpness, tempered, q, is_voted)
    _, _, likelihood = _expect(logs, sharpness, votes, transitions)
    return Channel(sharpness, transitions, likelihood / count)


def count_transitions(predicted: NDArray[np.float32], votes: Votes) -> NDArray[np.float64]:
    """Estimates T by counting labels against the most likely classes.

    Correct where the most likely class is the true one; unlike EM, it does not take labels that are
    wrong on images which are hard to classify for uncertainty about the class.

    Args:
      predicted: p, out of fold, float32 [n, C].
      votes: The labels.

    Returns:
      T, float64 [a, C, C].
    """
    q = np.zeros((votes.num_classes, len(predicted)), np.float32)
    q[predicted.argmax(1), np.arange(len(predicted))] = 1
    counts = _counts(q, votes)
    return _shrink(counts, _best_strength(predicted.T, q, counts, votes, STRENGTHS))[0]


def fewest_errors(
    predicted: NDArray[np.float32],
    votes: Votes,
    transitions: NDArray[np.float64],
    allowed: float,
) -> Channel | None:
    """Finds the channel with the fewest errors that the labels do not contradict.

    T moves toward the identity, (1 − a) T + a I, and each a has its own β. The set of all a whose
    ℓ, summed over examples, is at most `allowed` below the highest is a confidence interval: 1.353,
    half the 90 % quantile of χ² with one degree of freedom, makes its end a bound at 95 %.

    Args:
      predicted: p, out of fold, float32 [n, C].
      votes: The labels.
      transitions: T with the highest ℓ, float64 [a, C, C].
      allowed: In nats.

    Returns:
      The channel with the highest a in the interval; None if labels without errors are in it.
    """
    logs = np.log(predicted.T + np.float32(TINY))
    is_voted = (votes.labels != MISSING).any(1) | (votes.trusted != MISSING)

    def sharpest(share: float, sharpness: float) -> Channel:
        mixed = (1 - share) * transitions + share * np.eye(votes.num_classes)
        for _ in range(_NEWTON_STEPS):
            before = sharpness
            tempered, q, _ = _expect(logs, sharpness, votes, mixed)
            sharpness = _sharpened(logs, sharpness, tempered, q, is_voted)
            if abs(sharpness - before) < _SHARPNESS_TOLERANCE * before:
                break
        return Channel(sharpness, mixed, _expect(logs, sharpness, votes, mixed)[2])

    found = sharpest(0.0, 1.0)
    least = found.likelihood - allowed
    if sharpest(1.0, found.sharpness).likelihood >= least:
        return None
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        tried = sharpest(middle, found.sharpness)
        if tried.likelihood >= least:
            low, found = middle, tried
        else:
            high = middle
    return replace(found, likelihood=found.likelihood / int(is_voted.sum()))


def sharpen(predicted: NDArray[np.float32], sharpness: float) -> NDArray[np.float32]:
    """Returns p̂ ∝ p^β, float32 [n, C]."""
    logs = sharpness * np.log(predicted + np.float32(TINY))
    logs -= logs.max(1, keepdims=True)
    np.exp(logs, out=logs)
    logs /= logs.sum(1, keepdims=True)
    return logs.astype(np.float32)


def log_evidence(votes: Votes, transitions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns Σ_a log T_a[c, y_ia], float32 [C, n]; at trusted examples 0 for the known class."""
    total = np.zeros((votes.num_classes, len(votes.labels)), np.float32)
    for column, transition in zip(votes.labels.T, transitions, strict=True):
        logs = np.log(transition + TINY).astype(np.float32)
        # The last column is for missing labels, -1.
        total += np.append(logs, np.zeros((len(logs), 1), np.float32), axis=1)[:, column]
    rows = np.flatnonzero(votes.trusted != MISSING)
    total[:, rows] = _NEVER
    total[votes.trusted[rows], rows] = 0
    return total


def _expect(
    logs: NDArray[np.float32], sharpness: float, votes: Votes, transitions: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Returns p̂ and q, [C, n], and ℓ."""
    tempered, scale = _softmax(np.float32(sharpness) * logs)
    q, joint_scale = _softmax(np.float32(sharpness) * logs + log_evidence(votes, transitions))
    return tempered, q, float((joint_scale - scale).sum(dtype=np.float64))


def _softmax(
    logits: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the softmax over the first axis, overwriting logits, and log Σ exp."""
    most = logits.max(0)
    logits -= most
    np.exp(logits, out=logits)
    sums = logits.sum(0)
    logits /= sums
    return logits, most + np.log(sums)


def _sharpened(
    logs: NDArray[np.float32],
    sharpness: float,
    tempered: NDArray[np.float32],
    q: NDArray[np.float32],
    is_voted: NDArray[np.bool_],
) -> float:
    """Returns β after a Newton step."""
    mean = (tempered * logs).sum(0)
    slope = ((q * logs).sum(0) - mean)[is_voted].sum(dtype=np.float64)
    variance = ((tempered * logs * logs).sum(0) - mean**2)[is_voted].sum(dtype=np.float64)
    moved = sharpness + float(slope) / max(float(variance), TINY)
    moved = min(max(moved, sharpness / 2), 2 * sharpness)
    return min(max(moved, _SHARPNESS_RANGE[0]), _SHARPNESS_RANGE[1])


def _weighted(q: NDArray[np.float32], votes: Votes) -> NDArray[np.float32]:
    """Returns q with the trusted examples' weights."""
    rows = np.flatnonzero(votes.trusted != MISSING)
    if not len(rows):
        return q
    weighted = q.copy()
    weighted[:, rows] = 0
    weighted[votes.trusted[rows], rows] = votes.trusted_weight
    return weighted


def _counts(q: NDArray[np.float32], votes: Votes) -> NDArray[np.float64]:
    """Returns N_a[c, k], float64 [a, C, C]."""
    weighted = _weighted(q, votes)
    counts = np.zeros((votes.labels.shape[1], votes.num_classes, votes.num_classes))
    for matrix, column in zip(counts, votes.labels.T, strict=True):
        rows = slice(None) if (column != MISSING).all() else np.flatnonzero(column != MISSING)
        for row, each in zip(matrix, weighted, strict=True):
            row[:] = np.bincount(column[rows], each[rows], votes.num_classes)
    return counts


def _symmetric(classes: int, error_rate: float) -> NDArray[np.float64]:
    prior = np.full((classes, classes), error_rate / (classes - 1))
    np.fill_diagonal(prior, 1 - error_rate)
    return prior


def _shrink(
    counts: NDArray[np.float64], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns T, [a, C, C], and P, [C, C], from counts."""
    summed = counts.sum(0)
    total, right = float(summed.sum()), float(np.trace(summed))
    prior = _symmetric(len(summed), (total - right + 1) / (total + 2))
    if len(counts) > 1:
        prior = _normalized(summed + strength * prior)
    return _normalized(counts + strength * prior), prior


def _normalized(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts / counts.sum(-1, keepdims=True)


def _best_strength(
    tempered: NDArray[np.float32],
    q: NDArray[np.float32],
    counts: NDArray[np.float64],
    votes: Votes,
    strengths: Sequence[float],
) -> float:
    """Returns the s with the highest leave-one-out likelihood."""
    if len(strengths) == 1:
        return strengths[0]
    own = _weighted(q, votes)
    totals = counts.sum(2)
    scored = np.flatnonzero((votes.trusted == MISSING) & (votes.labels != MISSING).any(1))
    likelihoods = []
    for strength in strengths:
        _, prior = _shrink(counts, strength)
        joint = tempered[:, scored].astype(np.float32)
        for column, matrix, total in zip(votes.labels.T, counts, totals, strict=True):
            labels = column[scored]
            given = np.flatnonzero(labels != MISSING)
            places = scored[given]
            numerator = matrix + strength * prior
            without = numerator[:, labels[given]] - own[:, places]
            joint[:, given] *= without / (total[:, None] + strength - own[:, places])
        likelihoods.append(np.log(joint.sum(0) + TINY).sum(dtype=np.float64))
    return strengths[int(np.argmax(likelihoods))]
