# SPDX-License-Identifier: Apache-2.0
"""Converts a probe loss to example weights by one forward product.

After a look-ahead θ̂ = θ − α·∇Σ w_i ℓ_i, the derivative of the probe loss P(θ̂) by a weight is

    ∂P/∂w_i = −α ⟨∇θ ℓ_i(θ), v⟩ = −α (softmax(z_i) − y_i)·dz_i,     v = ∇P(θ̂),  dz = (∂z/∂θ)·v.

Reference: Ren et al. 2018 (arXiv:1803.09050), Algorithm 1; the forward product is ours.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

Tensor = Any

# From the IEG authors' code, not the paper. Weights sum to slightly less than 1, and to much less
# when the meta-gradient itself is this small.
_NORMALIZER_OFFSET = 1e-5


def weight_meta_gradient(logits: Tensor, labels: Tensor, dz: Tensor, lookahead_lr: float) -> Tensor:
    """Differentiates the probe loss after the look-ahead with respect to the example weights.

    g_i = −α (softmax(z_i) − y_i)·dz_i

    Args:
      logits: z, float [B, C], at the parameters θ before the look-ahead.
      labels: y, float [B, C], the labels in the look-ahead's loss.
      dz: (∂z/∂θ)·v, float [B, C].
      lookahead_lr: α, above 0.

    Returns:
      g = ∂P/∂w, float [B]; negative if more weight on the example lowers the probe loss.
    """
    residual = ops.softmax(logits, axis=-1) - labels
    return -lookahead_lr * ops.sum(residual * dz, axis=-1)


def clip_weights(
    meta_gradient: Tensor, sum_over_replicas: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Converts the meta-gradient to example weights.

    w_i = max(0, −g_i) / (Σ_j max(0, −g_j) + 1e-5)

    Args:
      meta_gradient: g = ∂P/∂w, float [B], of this replica's examples.
      sum_over_replicas: Sums a tensor over the replicas, so that Σ runs over the global batch; None
        for a single replica.

    Returns:
      w, float [B], at least 0, with a sum below 1 over all replicas; all 0 if no example helps.
      No gradient flows through it.
    """
    helpful = ops.maximum(-ops.stop_gradient(meta_gradient), 0.0)
    total = ops.sum(helpful)
    if sum_over_replicas is not None:
        total = sum_over_replicas(total)
    return helpful / (total + _NORMALIZER_OFFSET)


def label_meta_gradient(
    given_labels: Tensor,
    pseudo_labels: Tensor,
    dz: Tensor,
    example_weights: Tensor | float,
    lookahead_lr: float,
) -> Tensor:
    """Differentiates the probe loss after the look-ahead with respect to the label coefficients.

    With targets ỹ_i = λ_i y_i + (1 − λ_i) ĝ_i, ∂ℓ_i/∂λ_i has the logit gradient ĝ_i − y_i, so

    ∂P/∂λ_i = −α w_i (ĝ_i − y_i)·dz_i

    Args:
      given_labels: y, float [B, C].
      pseudo_labels: ĝ, float [B, C].
      dz: (∂z/∂θ)·v, float [B, C].
      example_weights: w in the look-ahead's loss, float [B] or a scalar.
      lookahead_lr: α.

    Returns:
      ∂P/∂λ, float [B]; negative if more trust in the given label lowers the probe loss.
    """
    product = ops.sum((pseudo_labels - given_labels) * dz, axis=-1)
    return -lookahead_lr * example_weights * product


def shift_weights(
    meta_gradient: Tensor,
    size: int,
    sum_over_replicas: Callable[[Tensor], Tensor] | None = None,
    minimum: Callable[[Tensor], Tensor] = ops.min,
) -> Tensor:
    """Converts the meta-gradient to example weights that are all positive.

    w̃_i = u_i − min_j u_j + 1/B,  u_i = 1/B − g_i,  w_i = w̃_i / (Σ_j w̃_j + 1e-5)

    Args:
      meta_gradient: g = ∂P/∂w, float [B], of this replica's examples.
      size: B of the global batch.
      sum_over_replicas: Sums a tensor over the replicas; None for a single replica.
      minimum: The minimum of a tensor over the global batch.

    Returns:
      w, float [B], above 0. No gradient flows through it.
    """
    shifted = 1.0 / size - ops.stop_gradient(meta_gradient)
    shifted = shifted - minimum(shifted) + 1.0 / size
    total = ops.sum(shifted)
    if sum_over_replicas is not None:
        total = sum_over_replicas(total)
    return shifted / (total + _NORMALIZER_OFFSET)
