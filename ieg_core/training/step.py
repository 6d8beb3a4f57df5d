# SPDX-License-Identifier: Apache-2.0
"""One training step: views from draws, the method's gradient, momentum SGD, the moving average.

m ← μ·m + ∇      θ ← θ − lr·m      θ_EMA ← d·θ_EMA + (1 − d)·θ
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ieg_core import augment, backend, models
from ieg_core.config import Config
from ieg_core.methods import Batch, Forward, Method, Network, State

Tensor = Any
TrainState = dict[str, Any]


def build_network(model: keras.Model, weight_decay: float) -> Network:
    """Makes the pure function that methods differentiate out of a Keras model."""

    def forward(params: Sequence[Tensor], stats: Sequence[Tensor], images: Tensor) -> Forward:
        (logits, features), stats = model.stateless_call(params, stats, images, training=True)
        return Forward(logits, features, stats)

    decayed = [variable.path.endswith("/kernel") for variable in model.trainable_variables]
    return Network(forward=forward, decayed=decayed, weight_decay=weight_decay)


def initial_state(model: keras.Model, method: Method, config: Config) -> TrainState:
    """Returns the state of step 0 as numpy arrays: θ, m = 0, θ_EMA = θ, s, the method's own."""
    values = {
        variable.path: value
        for variable, value in zip(
            model.variables, models.initial_values(model, config.seed), strict=True
        )
    }
    params = [values[variable.path] for variable in model.trainable_variables]
    return {
        "params": params,
        "momentum": [np.zeros_like(param) for param in params],
        "ema": [param.copy() for param in params],
        "stats": [values[variable.path] for variable in model.non_trainable_variables],
        "method": method.init(config),
    }


def ema_decay(step: int, limit: float) -> float:
    """Returns d = min(limit, (1 + t) / (10 + t)) of step t."""
    return min(limit, (1 + step) / (10 + step))


def build_batch(
    data: Mapping[str, Tensor],
    draws: Mapping[str, Tensor],
    config: Config,
    num_classes: int,
) -> Batch:
    """Makes a batch on the device from the images and one step's draws.

    Args:
      data: "images" uint8 [N, H, W, channels], "labels" int32 [N] as given and "probe_labels"
        int32 [N], clean on the probe's examples and meaningless elsewhere.
      draws: Of this replica's share: "ids", "offset_y", "offset_x" int32 [B], "flip" bool [B] and,
        prefixed "probe_", the same for the probe batch; either group may be absent.
      config: Padding and batch size.
      num_classes: C.

    Returns:
      The batch; what was not drawn is None.
    """

    def view(prefix: str, label_key: str) -> tuple[Tensor, Tensor]:
        if f"{prefix}ids" not in draws:
            return None, None
        ids = draws[f"{prefix}ids"]
        images = augment.crop_and_flip(
            ops.take(data["images"], ids, axis=0),
            draws[f"{prefix}offset_y"],
            draws[f"{prefix}offset_x"],
            draws[f"{prefix}flip"],
            config.augmentation.pad,
        )
        labels = ops.one_hot(ops.take(data[label_key], ids, axis=0), num_classes, dtype="float32")
        return augment.to_unit_range(images), labels

    images, labels = view("", "labels")
    probe_images, probe_labels = view("probe_", "probe_labels")
    return Batch(images, labels, probe_images, probe_labels, config.batch_size)


def build_step(method: Method, network: Network, config: Config, num_classes: int) -> Any:
    """Builds the function of one step that `backend.compile_loop` repeats.

    Args:
      method: The method.
      network: The network.
      config: The run's configuration.
      num_classes: C.

    Returns:
      (state, data, draws, scalars) -> (state, metrics, examples); scalars are "learning_rate" and
      "ema_decay".
    """

    def step(
        state: TrainState,
        data: Mapping[str, Tensor],
        draws: Mapping[str, Tensor],
        scalars: Mapping[str, Tensor],
    ) -> tuple[TrainState, Mapping[str, Tensor], Mapping[str, Tensor]]:
        batch = build_batch(data, backend.share(draws), config, num_classes)
        before = State(state["params"], state["momentum"], state["stats"], state["method"])
        update = method.update(network, config, before, batch)
        momentum = [
            config.optimizer.momentum * buffer + gradient
            for buffer, gradient in zip(state["momentum"], update.gradients, strict=True)
        ]
        params = [
            param - scalars["learning_rate"] * buffer
            for param, buffer in zip(state["params"], momentum, strict=True)
        ]
        decay = scalars["ema_decay"]
        averaged = [
            decay * average + (1.0 - decay) * param
            for average, param in zip(state["ema"], params, strict=True)
        ]
        after = {
            "params": params,
            "momentum": momentum,
            "ema": averaged,
            "stats": list(update.stats),
            "method": update.method,
        }
        return after, update.metrics, update.examples

    return step
