# SPDX-License-Identifier: Apache-2.0
"""The interface of a method: a pure function from (network, state, batch) to a gradient.

The loop owns everything else: data, views, the optimizer, evaluation, checkpoints. A method never
sees the clean labels of the noisy set; they are not on the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from ieg_core.data.label_set import LabelSet
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config
from ieg_core.methods.mixup import Mixing

Tensor = Any
S = TypeVar("S")


class Batch(NamedTuple):
    """The examples of one step; with several replicas, this replica's share of them.

    Attributes:
      ids: Indices of the examples in the base data set, int32 [B].
      images: The weak view, or the only view of a single-view method, float32 [B, H, W, channels]
        in [-1, 1].
      strong_images: The strong view of the same examples for a method with both views, or None.
      labels: Given labels, one-hot float32 [B, C].
      soft_labels: The posterior q of a teacher, float32 [B, C], or None.
      probe_images: View of a class-balanced batch from the probe or the dictionary, float32
        [B_p, H, W, channels], or None.
      probe_labels: Its labels, one-hot float32 [B_p, C], or None.
      mixing: The draws for MixUp, or None.
      epoch: Number of completed epochs, a float32 scalar.
      size: B of the global batch, over all replicas; the divisor of every mean over it.
      probe_size: B_p of the global probe batch.
    """

    ids: Tensor
    images: Tensor
    strong_images: Tensor | None
    labels: Tensor
    soft_labels: Tensor | None
    probe_images: Tensor | None
    probe_labels: Tensor | None
    mixing: Mixing | None
    epoch: Tensor
    size: int
    probe_size: int


class State(NamedTuple):
    """The part of the training state that a method reads.

    Attributes:
      params: θ, a list of trainable tensors.
      momentum: m, the optimizer's buffer, like params.
      stats: s, the BatchNorm statistics.
      method: The method's own state, a dictionary of tensors; empty for most methods.
    """

    params: Sequence[Tensor]
    momentum: Sequence[Tensor]
    stats: Sequence[Tensor]
    method: dict[str, Tensor]


class Update(NamedTuple):
    """The result of a method for one batch.

    Attributes:
      gradients: ∇θ of its loss, R included, summed over replicas; like params.
      stats: The new BatchNorm statistics, from the first forward pass only.
      method: The method's new state.
      metrics: Named scalars, summed over replicas: the loss and its terms.
      examples: Named per-example values, float32 [B, …], in the batch's order.
    """

    gradients: Sequence[Tensor]
    stats: Sequence[Tensor]
    method: dict[str, Tensor]
    metrics: dict[str, Tensor]
    examples: dict[str, Tensor]


class Forward(NamedTuple):
    """One forward pass in training mode.

    Attributes:
      logits: float32 [B, C].
      features: Penultimate features, float32 [B, F].
      stats: BatchNorm statistics updated with this batch.
    """

    logits: Tensor
    features: Tensor
    stats: Sequence[Tensor]


@dataclass(frozen=True)
class Network:
    """The network as a function of its parameters.

    Attributes:
      forward: (params, stats, images float32 [B, H, W, channels]) -> Forward.
      decayed: For each parameter, whether R = ½·wd·Σ‖kernel‖² includes it.
      weight_decay: wd.
      dense: Positions of the last layer's kernel [F, C] and bias [C] among the parameters; None
        if the network does not end in a dense layer.
    """

    forward: Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], Forward]
    decayed: Sequence[bool]
    weight_decay: float
    dense: tuple[int, int] | None

    @property
    def head(self) -> tuple[int, int]:
        """Positions of the last layer's kernel and bias; raises UserError if it is not dense."""
        if self.dense is None:
            raise UserError(
                "the network's last layer is not dense: this method expected a dense layer with a "
                "bias on features [B, F]; end the network in one, or choose another method"
            )
        return self.dense

    def add_decay(self, gradients: Sequence[Tensor], params: Sequence[Tensor]) -> Sequence[Tensor]:
        """Adds ∇R(θ) = wd·θ on the kernels to a gradient."""
        return [
            gradient + self.weight_decay * param if decayed else gradient
            for gradient, param, decayed in zip(gradients, params, self.decayed, strict=True)
        ]


def settings_of(config: Config, kind: type[S]) -> S:
    """Returns a configuration's method settings with their own type.

    Args:
      config: The configuration, whose settings are those of its method (`Config` sees to that).
      kind: The settings of the method that asks.

    Raises:
      TypeError: When the configuration is of another method.
    """
    settings = config.method_settings
    if not isinstance(settings, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(settings).__name__}")
    return settings


def no_state(config: Config, label_set: LabelSet) -> dict[str, Any]:
    """Returns the empty state of a method without one."""
    del config, label_set
    return {}


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
      update: (network, config, state, batch) -> Update; pure, written with keras.ops.
      metrics: Names of the metrics that `update` returns.
      examples: Names of the per-example values that it returns.
      init: (config, label set) -> the method's initial state, numpy arrays; it must not read clean
        labels outside the probe. A method with a dictionary keeps it under "dictionary", int32
        [capacity], class by class.
      after_epoch: (config, label set, state as numpy arrays) -> the entries that change; None for a
        method that does nothing between epochs. It must not read clean labels outside the probe.
    """

    update: Callable[[Network, Config, State, Batch], Update]
    metrics: tuple[str, ...] = ("loss",)
    examples: tuple[str, ...] = ()
    init: Callable[[Config, LabelSet], dict[str, Any]] = no_state
    after_epoch: Callable[[Config, LabelSet, dict[str, Any]], dict[str, Any]] | None = None
