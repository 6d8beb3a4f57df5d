# SPDX-License-Identifier: Apache-2.0
"""From a probe loss to example weights, by one forward product.

After a look-ahead θ̂ = θ − α·∇Σ w_i ℓ_i the probe loss P(θ̂) changes with the weight of example i as

    ∂P/∂w_i = −α ⟨∇θ ℓ_i(θ), v⟩ = −α (softmax(z_i) − y_i)·dz_i,     v = ∇P(θ̂),  dz = (∂z/∂θ)·v.

Reference: Ren et al. 2018 (arXiv:1803.09050), Algorithm 1; the forward product is ours.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

Tensor = Any

# Of the IEG authors' code, not of the paper: weights sum to slightly less than 1, and to much less
# where the meta-gradient itself is of this size.
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
      g = ∂P/∂w, float [B]; negative where more weight on the example would lower the probe loss.
    """
    residual = ops.softmax(logits, axis=-1) - labels
    return -lookahead_lr * ops.sum(residual * dz, axis=-1)


def clip_weights(
    meta_gradient: Tensor, sum_over_replicas: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Turns the meta-gradient into example weights.

    w_i = max(0, −g_i) / (Σ_j max(0, −g_j) + 1e-5)

    Args:
      meta_gradient: g = ∂P/∂w, float [B], of this replica's examples.
      sum_over_replicas: Sums a tensor over the replicas, so that Σ runs over the global batch; None
        for a single replica.

    Returns:
      w, float [B], at least 0, summing over all replicas to less than 1; all 0 if no example helps.
      No gradient flows through it.
    """
    helpful = ops.maximum(-ops.stop_gradient(meta_gradient), 0.0)
    total = ops.sum(helpful)
    if sum_over_replicas is not None:
        total = sum_over_replicas(total)
    return helpful / (total + _NORMALIZER_OFFSET)
