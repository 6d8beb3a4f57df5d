# SPDX-License-Identifier: Apache-2.0
"""The only package that distinguishes TensorFlow from JAX.

Both adapters define the same functions; `KERAS_BACKEND`, read when Keras is imported, selects the
adapter behind these names. Of the other code, only features and users' networks ask which it is:
for its fastest precision, and for networks that were saved for one of them.

With N replicas, each holds its own share of a batch (TensorFlow), or all see the whole batch, which
the compiler distributes (JAX). Code for both is written for a share: losses are sums over the local
examples divided by the *global* batch size, sums over a batch go through `sum_over_replicas`, and
`concatenate` joins blocks while keeping the rows of a replica together.
"""

import os
from typing import TYPE_CHECKING

from ieg_core.host.interrupts import deferred_interrupt
from ieg_core.host.runtime import chosen_backend

os.environ.setdefault("KERAS_BACKEND", chosen_backend())  # keras.json may name another

with deferred_interrupt():
    import keras


def set_keras_defaults() -> None:
    """Replaces what Keras has read from the user's keras.json by Keras's own defaults.

    Layers and losses take the format of images, the type of floats and ε from there, so the same
    trial would have another result.
    """
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)


set_keras_defaults()

with deferred_interrupt():
    if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
        from ieg_core.backend import tensorflow as _adapter
    else:
        from ieg_core.backend import jax as _adapter

Linearization = _adapter.Linearization
accelerators = _adapter.accelerators
compile_function = _adapter.compile_function
compile_loop = _adapter.compile_loop
concatenate = _adapter.concatenate
device_description = _adapter.device_description
fetch = _adapter.fetch
first_replica = _adapter.first_replica
gather_replicas = _adapter.gather_replicas
gradients = _adapter.gradients
linearize = _adapter.linearize
mean_over_replicas = _adapter.mean_over_replicas
place = _adapter.place
share = _adapter.share
split = _adapter.split
start = _adapter.start
sum_over_replicas = _adapter.sum_over_replicas
