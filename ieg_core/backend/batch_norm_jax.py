# SPDX-License-Identifier: Apache-2.0
"""BatchNorm's training mode on JAX; XLA fuses the composite form by itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def replicas() -> tuple[Callable[[jax.Array], jax.Array] | None, int]:
    """Returns (None, 1): under `jit` over a sharded batch every mean is global already."""
    return None, 1


def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    epsilon: float,
    *,
    sum_over_replicas: Callable[[jax.Array], jax.Array] | None = None,
    num_replicas: int = 1,
    kernel: str = "auto",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes a batch by its own moments.

    y = scale·(x − μ)/√(σ² + epsilon) + offset, with σ² the mean of squared deviations (biased).

    Args:
      x: Feature maps [B, H, W, ch], float32, float64 or bfloat16.
      scale: γ [ch], float32 or float64.
      offset: β [ch], of the scale's dtype.
      epsilon: Added to the variance.
      sum_over_replicas: Differentiable sum of a tensor over replicas that hold equally large
        batches, or None for moments of this batch alone.
      num_replicas: The number of replicas.
      kernel: Accepted for the sake of the other backend; there is one form here.

    Returns:
      y [B, H, W, ch] of x's dtype; μ and σ² [ch] of the scale's dtype, without gradients.
    """
    del kernel
    values = x.astype(scale.dtype)
    mean = jnp.mean(values, axis=(0, 1, 2))
    variance = jnp.mean(jnp.square(values - mean), axis=(0, 1, 2))
    if sum_over_replicas is not None:
        second = variance + jnp.square(mean)
        mean, second = sum_over_replicas(jnp.stack([mean, second])) / num_replicas
        variance = second - jnp.square(mean)
    y = (values - mean) * (scale * jax.lax.rsqrt(variance + epsilon)) + offset
    return y.astype(x.dtype), jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance)
