# SPDX-License-Identifier: Apache-2.0
"""One training step: views from draws, the method's gradient, momentum SGD, moving average.

m ← μ·m + ∇      θ ← θ − lr·m      θ_EMA ← d·θ_EMA + (1 − d)·θ
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ieg_core import augment, backend
from ieg_core.data.label_set import LabelSet
from ieg_core.experiment.config import Config
from ieg_core.experiment.methods import method_spec
from ieg_core.methods.method import Batch, Forward, Method, Network, State
from ieg_core.methods.mixup import Mixing
from ieg_core.models import pretrained, zoo

Tensor = Any
TrainState = dict[str, Any]


def build_model(
    config: Config,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    batch_norm: str = "auto",
) -> keras.Model:
    """Builds the network of a configuration, in its precision.

    Args:
      config: Names the network, its precision and its BatchNorm.
      num_classes: C.
      image_shape: (height, width, channels) of an image, in pixels.
      batch_norm: Kernel of the BatchNorm layers.

    Returns:
      The model, see `ieg_core.models.zoo.build`.

    Raises:
      UserError: When a user's network is refused.
    """
    return zoo.build(
        config.network,
        num_classes,
        image_shape,
        dtype="mixed_bfloat16" if config.precision == "bfloat16" else "float32",
        batch_norm=batch_norm,
        synchronized=config.synchronized_batch_norm,
        seed=config.seed,
    )


def build_network(model: keras.Model, weight_decay: float) -> Network:
    """Wraps a Keras model in the pure function that methods differentiate."""

    def forward(params: Sequence[Tensor], stats: Sequence[Tensor], images: Tensor) -> Forward:
        (logits, features), stats = model.stateless_call(params, stats, images, training=True)
        return Forward(logits, features, stats)

    decayed = [variable.path.endswith("kernel") for variable in model.trainable_variables]
    return Network(forward, decayed, weight_decay, dense=zoo.dense_variables(model))


def initial_state(
    model: keras.Model, method: Method, config: Config, label_set: LabelSet
) -> TrainState:
    """Returns the state before step 0 as numpy arrays: θ, m = 0, θ_EMA = θ, s, method state.

    Args:
      model: The network, for the shapes of its variables; its values are not read.
      method: The method.
      config: The configuration: its seed draws θ, or its file of initial values gives it.
      label_set: The labels, for the method's own state.

    Raises:
      UserError: When the file of initial values does not fit the network.
    """
    drawn = zoo.initial_values(model, config.seed)
    if config.pretrained:
        drawn = pretrained.initial_values(model, drawn, config.pretrained)
    # Keyed by identity: variables of equally named layers in two nested models share a path.
    values = {id(variable): value for variable, value in zip(model.variables, drawn, strict=True)}
    params = [values[id(variable)] for variable in model.trainable_variables]
    return {
        "params": params,
        "momentum": [np.zeros_like(param) for param in params],
        "ema": [param.copy() for param in params],
        "stats": [values[id(variable)] for variable in model.non_trainable_variables],
        "method": method.init(config, label_set),
    }


def ema_decay(step: int, limit: float) -> float:
    """Returns d = min(limit, (1 + t) / (10 + t)) for step t."""
    return min(limit, (1 + step) / (10 + step))


def build_batch(
    data: Mapping[str, Tensor],
    draws: Mapping[str, Tensor],
    method_state: Mapping[str, Tensor],
    epoch: Tensor,
    config: Config,
    num_classes: int,
) -> Batch:
    """Builds a batch on the device from the images and the draws of one step.

    Args:
      data: "images" uint8 [N, H, W, channels]; "labels" int32 [N], the given labels; and
        "probe_labels" int32 [N], clean for the examples of the probe and meaningless elsewhere;
        and of a method with a teacher "soft_labels" float32 [N, C].
        Streamed images (see `training.streaming`) are in `draws` instead.
      draws: This replica's share of `training.step_draws.step_draws`.
      method_state: "dictionary" int32 [capacity], for a method with a dictionary.
      epoch: Number of completed epochs, float32.
      config: Views and batch sizes.
      num_classes: C.

    Returns:
      The batch; fields without a draw are None.
    """

    def view(ids: Tensor, prefix: str) -> Tensor:
        drawn = {
            name.removeprefix(prefix): value
            for name, value in draws.items()
            if name.startswith(prefix)
        }
        images = drawn.pop("images", None)
        if images is None:
            images = ops.take(data["images"], ids, axis=0)
        if "affine" in drawn:
            images = augment.strong_view(images, drawn, config.augmentation)
        else:
            images = augment.crop_and_flip(images, **drawn, pad=config.augmentation.pad)
        return augment.to_unit_range(images)

    def labels(ids: Tensor, name: str) -> Tensor:
        return ops.one_hot(ops.take(data[name], ids, axis=0), num_classes, dtype="float32")

    ids = draws.get("ids")
    probe_ids, probe_labels = draws.get("probe_ids"), "probe_labels"
    probe_size = config.method_settings.trusted_batch_size(config.batch_size)
    spec = method_spec(config.method)
    if spec.uses_dictionary:
        probe_ids = ops.take(method_state["dictionary"], draws["probe_slots"], axis=0)
        probe_labels = "labels"
    mixing = None
    if "mix_partners" in draws:
        mixing = Mixing(
            draws["mix_partners"], draws["mix_coefficients"], draws.get("mix_probe_choice")
        )
    both = spec.view == "both"
    return Batch(
        ids=ids,
        images=None if ids is None else view(ids, "view_"),
        strong_images=view(ids, "strong_") if both else None,
        labels=None if ids is None else labels(ids, "labels"),
        soft_labels=ops.take(data["soft_labels"], ids, axis=0) if "soft_labels" in data else None,
        probe_images=None if probe_ids is None else view(probe_ids, "probe_view_"),
        probe_labels=None if probe_ids is None else labels(probe_ids, probe_labels),
        mixing=mixing,
        epoch=epoch,
        size=config.batch_size,
        probe_size=probe_size,
    )


def build_step(method: Method, network: Network, config: Config, num_classes: int) -> Any:
    """Builds the step function that `backend.compile_loop` repeats.

    Args:
      method: The method.
      network: The network.
      config: The run's configuration.
      num_classes: C.

    Returns:
      (state, data, draws, scalars) -> (state, metrics, examples); scalars are "learning_rate",
      "ema_decay" and "epoch".
    """

    def step(
        state: TrainState,
        data: Mapping[str, Tensor],
        draws: Mapping[str, Tensor],
        scalars: Mapping[str, Tensor],
    ) -> tuple[TrainState, Mapping[str, Tensor], Mapping[str, Tensor]]:
        drawn = backend.share(draws)
        batch = build_batch(data, drawn, state["method"], scalars["epoch"], config, num_classes)
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
        stats = list(update.stats)
        if not config.synchronized_batch_norm:
            stats = backend.mean_over_replicas(stats)
        decay = scalars["ema_decay"]
        averaged = [
            decay * average + (1.0 - decay) * param
            for average, param in zip(state["ema"], params, strict=True)
        ]
        after = {
            "params": params,
            "momentum": momentum,
            "ema": averaged,
            "stats": stats,
            "method": update.method,
        }
        return after, update.metrics, update.examples

    return step
