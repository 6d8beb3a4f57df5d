# SPDX-License-Identifier: Apache-2.0
"""BatchNorm as a Keras layer on top of the backend's fastest kernel.

Training: y = γ·(x − μ)/√(σ² + ε) + β with the batch's μ and σ² (the mean of squared deviations,
without Bessel's correction on all backends and kernels), over all replicas if `synchronized`.
Inference: the same with the moving statistics s, which training updates by s ← m·s + (1 − m)·batch,
m = 0.9 but for the ImageNet networks.
Only the tensors that `stateless_call` returns hold the updated statistics; a pass that must not
update s discards them.
"""

import importlib
from types import ModuleType

import keras
from keras import ops

MOMENTUM = 0.9
EPSILON = 1e-5


def _kernels() -> ModuleType:
    """Imports the kernels of the active backend only."""
    return importlib.import_module(f"ieg_core.backend.batch_norm_{keras.backend.backend()}")


class BatchNormalization(keras.layers.Layer):
    """BatchNorm over batch and pixels of [B, H, W, ch], moments in float32 or better.

    Variables, in the order of `keras.layers.BatchNormalization`: gamma, beta, moving_mean,
    moving_variance, each [ch].
    """

    def __init__(
        self,
        *,
        kernel: str = "auto",
        synchronized: bool = True,
        momentum: float = MOMENTUM,
        epsilon: float = EPSILON,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Initializes the layer.

        Args:
          kernel: "auto", "fused" or "composite", see `ieg_core.backend.batch_norm_tensorflow`.
          synchronized: Whether the moments are those of the global batch over all replicas.
          momentum: Share of the previous moving statistics that a training step keeps, in [0, 1].
          epsilon: Added to the variance.
          name: The layer's name.
          dtype: The layer's dtype policy.
        """
        super().__init__(name=name, dtype=dtype)
        self.kernel = kernel
        self.synchronized = synchronized
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the four variables [ch]."""
        for name, initializer, trainable in (
            ("gamma", "ones", True),
            ("beta", "zeros", True),
            ("moving_mean", "zeros", False),
            ("moving_variance", "ones", False),
        ):
            variable = self.add_weight(
                shape=(input_shape[-1],),
                initializer=initializer,
                trainable=trainable,
                # With a bfloat16 policy the moments must stay float32.
                autocast=False,
                name=name,
            )
            setattr(self, name, variable)

    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Normalizes x [B, H, W, ch]; in training mode also updates the moving statistics."""
        if not training:
            scale = self.gamma * ops.rsqrt(self.moving_variance + self.epsilon)
            offset = self.beta - self.moving_mean * scale
            y = ops.cast(x, self.variable_dtype) * scale + offset
            return ops.cast(y, self.compute_dtype)
        y, mean, variance = _kernels().normalize(
            x,
            ops.convert_to_tensor(self.gamma),
            ops.convert_to_tensor(self.beta),
            self.epsilon,
            synchronized=self.synchronized,
            kernel=self.kernel,
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1.0 - self.momentum) * batch)
        return y

    def compute_output_spec(
        self, x: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        """Returns shape and dtype of the output without running a kernel."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)
