# SPDX-License-Identifier: Apache-2.0
"""Per-example losses; the caller weights and sums them."""

from collections.abc import Callable
from typing import Any

from keras import ops

Tensor = Any


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Computes the cross-entropy between labels and the softmax of logits.

    ℓ(z, y) = −Σ_c y_c log softmax(z)_c

    Args:
      logits: z, float [B, C].
      labels: y, float [B, C], each row a distribution over the classes.

    Returns:
      ℓ, float [B], at least 0.
    """
    return -ops.sum(labels * ops.log_softmax(logits, axis=-1), axis=-1)


def forward_cross_entropy(logits: Tensor, labels: Tensor, transition: Tensor) -> Tensor:
    """Cross-entropy between given labels and the distribution of given labels that z implies.

    ℓ(z, y) = −log Σ_c softmax(z)_c T[c, y],   ∂ℓ/∂z = softmax(z) − q,   q_c ∝ softmax(z)_c T[c, y]

    Args:
      logits: z of the true class, float [B, C].
      labels: y, one-hot float [B, C].
      transition: T[c, k] = P(given label k | class c), float [C, C], each entry above 0.

    Returns:
      ℓ, float [B], at least 0 and at most −log min T.
    """
    likelihoods = labels @ ops.transpose(transition)
    return -ops.logsumexp(ops.log_softmax(logits, axis=-1) + ops.log(likelihoods), axis=-1)


def smooth_labels(labels: Tensor, smoothing: float) -> Tensor:
    """Spreads a share of each label evenly over all classes.

    y' = (1 − s)·y + s/C

    Args:
      labels: y, float [B, C], each row a distribution over the classes.
      smoothing: s, in [0, 1].

    Returns:
      y', float [B, C], each row a distribution; `labels` itself if s = 0.
    """
    if smoothing == 0.0:
        return labels
    return (1.0 - smoothing) * labels + smoothing / labels.shape[-1]


def normalize_logits(
    logits: Tensor, size: int, sum_over_replicas: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Scales a block of logits to a mean square of 1.

    n(z) = z / sqrt(mean(z²) + 1e-8), with the mean over the whole block

    Args:
      logits: z, float [B, C], this replica's rows.
      size: B of the global block.
      sum_over_replicas: Sums a tensor over the replicas; None for a single replica.

    Returns:
      n(z), float [B, C].
    """
    total = ops.sum(ops.square(logits))
    if sum_over_replicas is not None:
        total = sum_over_replicas(total)
    return logits * ops.rsqrt(total / (size * logits.shape[-1]) + 1e-8)


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Concentrates distributions on their largest class: g^(1/T) / Σ g^(1/T).

    Args:
      probabilities: g, float [B, C], each row a distribution.
      temperature: T, above 0; 1 changes nothing.

    Returns:
      float [B, C], each row a distribution.
    """
    powers = probabilities ** (1.0 / temperature)
    return powers / ops.sum(powers, axis=-1, keepdims=True)


def kl_divergence(target_logits: Tensor, logits: Tensor) -> Tensor:
    """Computes KL(softmax(target_logits) ‖ softmax(logits)) per example.

    Args:
      target_logits: float [B, C].
      logits: float [B, C].

    Returns:
      float [B], at least 0 up to rounding.
    """
    log_target = ops.log_softmax(target_logits, axis=-1)
    difference = log_target - ops.log_softmax(logits, axis=-1)
    return ops.sum(ops.exp(log_target) * difference, axis=-1)
