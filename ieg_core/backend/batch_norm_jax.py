# SPDX-License-Identifier: Apache-2.0
"""BatchNorm in training mode on JAX; XLA fuses the composite form."""

import jax
import jax.numpy as jnp

from ieg_core.backend.jax import num_shares


def normalize(
    x: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    epsilon: float,
    *,
    synchronized: bool,
    kernel: str = "auto",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes a batch by its global moments or by those of each replica's share.

    Under `jit`, every mean over a sharded batch is global; a replica's share is a group of its
    rows.

    Args:
      x: Feature maps [B, H, W, ch], the global batch.
      scale: γ [ch].
      offset: β [ch].
      epsilon: Added to the variance.
      synchronized: Whether the moments are those of the global batch.
      kernel: Ignored; for compatibility with the TensorFlow adapter.

    Returns:
      y, μ and σ², see `batch_norm`.
    """
    del kernel
    return batch_norm(x, scale, offset, epsilon, 1 if synchronized else num_shares())


def batch_norm(
    x: jax.Array, scale: jax.Array, offset: jax.Array, epsilon: float, num_shares: int = 1
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each share of a batch by its own moments.

    y = scale·(x − μ)/√(σ² + epsilon) + offset, with σ² the mean of squared deviations (biased).

    Args:
      x: Feature maps [B, H, W, ch], float32, float64 or bfloat16.
      scale: γ [ch], float32 or float64.
      offset: β [ch], of the scale's dtype.
      epsilon: Added to the variance.
      num_shares: N, a divisor of B; share r consists of the B/N rows from r·B/N.

    Returns:
      y [B, H, W, ch] of x's dtype; μ and σ² [ch] of the scale's dtype, averaged over the shares,
      without gradients.
    """
    shares = x.astype(scale.dtype).reshape(num_shares, -1, *x.shape[1:])
    mean = jnp.mean(shares, axis=(1, 2, 3), keepdims=True)
    variance = jnp.mean(jnp.square(shares - mean), axis=(1, 2, 3), keepdims=True)
    y = (shares - mean) * (scale * jax.lax.rsqrt(variance + epsilon)) + offset
    moments = (jax.lax.stop_gradient(jnp.mean(m, axis=(0, 1, 2, 3))) for m in (mean, variance))
    return y.reshape(x.shape).astype(x.dtype), *moments
