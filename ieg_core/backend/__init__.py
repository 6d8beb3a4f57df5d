# SPDX-License-Identifier: Apache-2.0
"""The one place that knows TensorFlow from JAX.

Both modules offer the same functions; `KERAS_BACKEND` decides, when Keras is imported, which one
stands behind these names. Nothing else in the package branches on the backend.

With N replicas each holds its own share of a batch (TensorFlow) or all see the whole one, spread
by the compiler (JAX). Code for both is written for a share: losses are sums over the examples at
hand divided by the *global* batch size, and sums over a batch go through `sum_over_replicas`.
"""

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from ieg_core.backend.tensorflow import (
        HAS_SHARES,
        Linearization,
        accelerators,
        compile_function,
        compile_loop,
        device_description,
        fetch,
        first_replica,
        gather_replicas,
        gradients,
        linearize,
        place,
        share,
        start,
        sum_over_replicas,
    )
else:
    from ieg_core.backend.jax import (
        HAS_SHARES,
        Linearization,
        accelerators,
        compile_function,
        compile_loop,
        device_description,
        fetch,
        first_replica,
        gather_replicas,
        gradients,
        linearize,
        place,
        share,
        start,
        sum_over_replicas,
    )

__all__ = [
    "HAS_SHARES",
    "Linearization",
    "accelerators",
    "compile_function",
    "compile_loop",
    "device_description",
    "fetch",
    "first_replica",
    "gather_replicas",
    "gradients",
    "linearize",
    "place",
    "share",
    "start",
    "sum_over_replicas",
]
