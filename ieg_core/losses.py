# SPDX-License-Identifier: Apache-2.0
"""Losses per example, never reduced: the caller weights and sums."""

from typing import Any

from keras import ops

Tensor = Any


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy between labels and the softmax of logits.

    ℓ(z, y) = −Σ_c y_c log softmax(z)_c

    Args:
      logits: z, float [B, C].
      labels: y, float [B, C], each row a distribution over the classes.

    Returns:
      ℓ, float [B], at least 0.
    """
    return -ops.sum(labels * ops.log_softmax(logits, axis=-1), axis=-1)


def smooth_labels(labels: Tensor, smoothing: float) -> Tensor:
    """Moves a share of each label to all classes alike.

    y' = (1 − s)·y + s/C

    Args:
      labels: y, float [B, C], each row a distribution over the classes.
      smoothing: s, in [0, 1].

    Returns:
      y', float [B, C], again distributions; `labels` themselves where s = 0.
    """
    if smoothing == 0.0:
        return labels
    return (1.0 - smoothing) * labels + smoothing / labels.shape[-1]
