# SPDX-License-Identifier: Apache-2.0
"""BatchNorm in training mode on TensorFlow: a twice differentiable fused kernel, or plain ops.

TensorFlow differentiates its fused gradient kernel through a slow composite. However, the Jacobian
of the normalization with respect to its input is symmetric:

    J_x u = γ·r·(u − mean(u) − x̂·mean(u·x̂)),   r = 1/√(σ² + ε),  x̂ = (x − μ)·r,   J_x = J_xᵀ,

so the fused gradient kernel, applied to a tangent, also computes the forward product, and J_γ = x̂
and J_β = 1 cost one multiply-add.
"""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

SumOverReplicas = Callable[[tf.Tensor], tf.Tensor]


def normalize(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    epsilon: float,
    *,
    synchronized: bool,
    kernel: str = "auto",
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes this replica's share of a batch by its own or by the global moments.

    Args:
      x: Feature maps [B, H, W, ch], this replica's share of the batch.
      scale: γ [ch].
      offset: β [ch].
      epsilon: Added to the variance.
      synchronized: Whether the moments are those of the global batch.
      kernel: See `batch_norm`.

    Returns:
      y, μ and σ², see `batch_norm`.
    """
    sum_over_replicas, num_replicas = replicas() if synchronized else (None, 1)
    return batch_norm(
        x,
        scale,
        offset,
        epsilon,
        sum_over_replicas=sum_over_replicas,
        num_replicas=num_replicas,
        kernel=kernel,
    )


def replicas() -> tuple[SumOverReplicas | None, int]:
    """Returns how to sum over replicas in the current trace.

    Returns:
      The differentiable sum over replicas, or None for a single replica; and the number of
      replicas.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None, 1
    return (
        lambda tensor: context.all_reduce(tf.distribute.ReduceOp.SUM, tensor),
        context.num_replicas_in_sync,
    )


def batch_norm(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    epsilon: float,
    *,
    sum_over_replicas: SumOverReplicas | None = None,
    num_replicas: int = 1,
    kernel: str = "auto",
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes a batch by its own moments.

    y = scale·(x − μ)/√(σ² + epsilon) + offset, with σ² the mean of squared deviations (biased).

    Args:
      x: Feature maps [B, H, W, ch], float32, float64 or bfloat16.
      scale: γ [ch], float32 or float64.
      offset: β [ch], of the scale's dtype.
      epsilon: Added to the variance.
      sum_over_replicas: Differentiable sum of a tensor over replicas with batches of equal size, or
        None for the moments of this batch alone.
      num_replicas: The number of replicas.
      kernel: "fused", "composite", or "auto": fused if available (one replica, float32 scale).

    Returns:
      y [B, H, W, ch] of x's dtype; μ and σ² [ch] of the scale's dtype, without gradients.

    Raises:
      ValueError: When `kernel` is "fused" and the fused kernel is not available.
    """
    # Variables are read here, because custom gradients refuse them as arguments.
    x, scale, offset = (tf.convert_to_tensor(value) for value in (x, scale, offset))
    has_fused = sum_over_replicas is None and scale.dtype == tf.float32
    if kernel == "fused" and not has_fused:
        raise ValueError(
            f"kernel='fused' received num_replicas={num_replicas} and {scale.dtype.name}: expected "
            "one replica and float32; use kernel='auto'"
        )
    if kernel != "composite" and has_fused:
        y, mean, variance = _fused(x, scale, offset, epsilon)
    else:
        y, mean, variance = _composite(x, scale, offset, epsilon, sum_over_replicas, num_replicas)
    return y, tf.stop_gradient(mean), tf.stop_gradient(variance)


def _composite(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    epsilon: float | tf.Tensor,
    sum_over_replicas: SumOverReplicas | None = None,
    num_replicas: int = 1,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes with plain operations, differentiable to any order."""
    values = tf.cast(x, scale.dtype)
    mean = tf.reduce_mean(values, axis=(0, 1, 2))
    variance = tf.reduce_mean(tf.square(values - mean), axis=(0, 1, 2))
    if sum_over_replicas is not None:
        moments = tf.stack([mean, variance + tf.square(mean)])
        mean, second = tf.unstack(sum_over_replicas(moments) / num_replicas)
        # Where a channel hardly varies, rounding can make the difference negative.
        variance = tf.maximum(second - tf.square(mean), 0.0)
    y = (values - mean) * (scale * tf.math.rsqrt(variance + epsilon)) + offset
    return tf.cast(y, x.dtype), mean, variance


def _fused(
    x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes with TensorFlow's fused kernels: forward, backward and for tangents."""

    @tf.custom_gradient
    def forward(
        x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], Callable[..., object]]:
        empty = tf.zeros([0], tf.float32)
        out = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=empty, variance=empty, epsilon=epsilon
        )
        # The kernel returns the variance with Bessel's correction.
        count = tf.cast(tf.size(x) // tf.size(scale), tf.float32)
        variance = out.batch_variance * (tf.maximum(count - 1.0, 1.0) / count)
        saved = (
            out.batch_mean,
            variance,
            out.reserve_space_1,
            out.reserve_space_2,
            out.reserve_space_3,
        )

        def gradient(
            dy: tf.Tensor, _mean: tf.Tensor, _variance: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            return _fused_backward(dy, x, scale, saved, epsilon)

        return (out.y, out.batch_mean, variance), gradient

    return forward(x, scale, offset)


def _fused_backward(
    dy: tf.Tensor, x: tf.Tensor, scale: tf.Tensor, saved: Sequence[tf.Tensor], epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the gradients (dx, dγ, dβ), differentiable once more."""

    # All tensors are arguments: for a captured tensor, TensorFlow searches the whole network for
    # variables, once per layer.
    @tf.custom_gradient
    def backward(
        dy: tf.Tensor, x: tf.Tensor, scale: tf.Tensor, *saved: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], Callable[..., object]]:
        mean, variance, *reserved = saved

        def fused_gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            grads = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=dy,
                x=x,
                scale=scale,
                reserve_space_1=reserved[0],
                reserve_space_2=reserved[1],
                reserve_space_3=reserved[2],
                epsilon=epsilon,
            )
            return grads.x_backprop, grads.scale_backprop, grads.offset_backprop

        def tangent(
            x_tangent: tf.Tensor, scale_tangent: tf.Tensor, offset_tangent: tf.Tensor
        ) -> tuple[tf.Tensor | None, ...]:
            gain = scale_tangent * tf.math.rsqrt(variance + epsilon)
            shift = offset_tangent - mean * gain
            through_x = fused_gradient(x_tangent)[0]
            through_parameters = tf.cast(tf.cast(x, tf.float32) * gain + shift, x.dtype)
            curvature = _curvature(
                tf.cast(x, tf.float32),
                scale,
                tf.cast(dy, tf.float32),
                tf.cast(x_tangent, tf.float32),
                scale_tangent,
                tf.constant(epsilon, tf.float32),
            )
            return (
                through_x + through_parameters,
                tf.cast(curvature[0], x.dtype),
                curvature[1],
                *[None] * len(saved),
            )

        return fused_gradient(dy), tangent

    return backward(dy, x, scale, *saved)


_MAPS = tf.TensorSpec([None, None, None, None], tf.float32)
_CHANNELS = tf.TensorSpec([None], tf.float32)


# One function for all layers and shapes: it is rarely needed, and inlining it doubles the time that
# TensorFlow takes to build the graph of a forward product.
@functools.partial(
    tf.function,
    autograph=False,
    input_signature=[_MAPS, _CHANNELS, _MAPS, _MAPS, _CHANNELS, tf.TensorSpec([], tf.float32)],
)
def _curvature(
    x: tf.Tensor,
    scale: tf.Tensor,
    dy: tf.Tensor,
    x_tangent: tf.Tensor,
    scale_tangent: tf.Tensor,
    epsilon: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Differentiates ⟨dx, x_tangent⟩ + ⟨dγ, scale_tangent⟩ with respect to x and γ."""
    offset = tf.zeros_like(scale)
    with tf.GradientTape() as outer:
        outer.watch([x, scale])
        with tf.GradientTape() as inner:
            inner.watch([x, scale])
            y = _composite(x, scale, offset, epsilon)[0]
        gradients = inner.gradient(y, [x, scale], output_gradients=dy)
    return outer.gradient(gradients, [x, scale], output_gradients=[x_tangent, scale_tangent])
