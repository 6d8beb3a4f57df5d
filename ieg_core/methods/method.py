# SPDX-License-Identifier: Apache-2.0
"""What a method is: a pure function from (network, state, batch) to a gradient and its by-products.

The loop owns everything else: data, views, the optimiser, evaluation, checkpoints. A method never
sees the clean labels of the noisy set; they are not on the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ieg_core.data.label_set import LabelSet
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config
from ieg_core.methods.mixup import Mixing

Tensor = Any


class Batch(NamedTuple):
    """One step's examples; with several replicas, this replica's share of them.

    Attributes:
      ids: Indices of the examples in the base data set, int32 [B].
      images: The view of a single-view method, else the weak one, float32 [B, H, W, channels] in
        [-1, 1].
      strong_images: The strong view of the same examples for a method with both, or None.
      labels: Given labels, one-hot float32 [B, C].
      probe_images: View of a class-balanced batch of the probe or the dictionary, float32
        [B_p, H, W, channels], or None.
      probe_labels: Its labels, one-hot float32 [B_p, C], or None.
      mixing: MixUp's draws, or None.
      epoch: Epochs done, a float32 scalar.
      size: B of the global batch, over all replicas; the divisor of every mean over it.
      probe_size: B_p of the global probe batch.
    """

    ids: Tensor
    images: Tensor
    strong_images: Tensor | None
    labels: Tensor
    probe_images: Tensor | None
    probe_labels: Tensor | None
    mixing: Mixing | None
    epoch: Tensor
    size: int
    probe_size: int


class State(NamedTuple):
    """What a step reads of the training state.

    Attributes:
      params: θ, a list of trainable tensors.
      momentum: m, the optimiser's buffer, like params.
      stats: s, the BatchNorm statistics.
      method: The method's own state, a dictionary of tensors; empty for most.
    """

    params: Sequence[Tensor]
    momentum: Sequence[Tensor]
    stats: Sequence[Tensor]
    method: dict[str, Tensor]


class Update(NamedTuple):
    """What a method makes of a batch.

    Attributes:
      gradients: ∇θ of its loss, R included, summed over replicas; like params.
      stats: The new BatchNorm statistics, from the first forward pass alone.
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
      stats: BatchNorm statistics moved by this batch.
    """

    logits: Tensor
    features: Tensor
    stats: Sequence[Tensor]


@dataclass(frozen=True)
class Network:
    """The network as a function of its parameters.

    Attributes:
      forward: (params, stats, images float32 [B, H, W, channels]) -> Forward.
      decayed: For each parameter, whether R = ½·wd·Σ‖kernel‖² counts it.
      weight_decay: wd.
      dense: Positions of the last layer's kernel [F, C] and bias [C] among the parameters; None
        where the network does not end in a dense layer.
    """

    forward: Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], Forward]
    decayed: Sequence[bool]
    weight_decay: float
    dense: tuple[int, int] | None

    @property
    def head(self) -> tuple[int, int]:
        """The positions of the last layer's kernel and bias, for a method that looks into it."""
        if self.dense is None:
            raise UserError(
                "this method looks into the network's last layer, which is no dense layer with a "
                "bias on features [B, F]: end the network in one, or choose another method"
            )
        return self.dense

    def add_decay(self, gradients: Sequence[Tensor], params: Sequence[Tensor]) -> Sequence[Tensor]:
        """Adds ∇R(θ) = wd·θ on the kernels to a gradient."""
        return [
            gradient + self.weight_decay * param if decayed else gradient
            for gradient, param, decayed in zip(gradients, params, self.decayed, strict=True)
        ]


def no_state(config: Config, label_set: LabelSet) -> dict[str, Any]:
    """The state of a method that has none."""
    del config, label_set
    return {}


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
      update: (network, config, state, batch) -> Update; pure, written with keras.ops.
      metrics: Names of the metrics that `update` returns.
      examples: Names of the per-example values that it returns.
      init: (config, label set) -> its own initial state, numpy arrays; it must not read clean
        labels outside the probe.
      after_epoch: (config, label set, its state as numpy arrays) -> the entries that change, or
        None for a method that does nothing between epochs.
    """

    update: Callable[[Network, Config, State, Batch], Update]
    metrics: tuple[str, ...] = ("loss",)
    examples: tuple[str, ...] = ()
    init: Callable[[Config, LabelSet], dict[str, Any]] = no_state
    after_epoch: Callable[[Config, LabelSet, dict[str, Any]], dict[str, Any]] | None = None
