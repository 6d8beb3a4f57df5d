# SPDX-License-Identifier: Apache-2.0
"""Forward: loss correction with an estimated transition matrix.

    p       = softmax(f(x; θ))
    warm-up:  L = Σ_i −log p_{y_i}(x_i) / B + R
    N[c, k] = number of examples with argmax p(x_i) = c and y_i = k, in the last warm-up epoch
    T[c, ·] = (1 − ε)·(N + I)[c, ·] / Σ_k (N + I)[c, k] + ε/C        T[c, k] = P(y = k | class c)
    after it: L = Σ_i −log Σ_c p_c(x_i) T[c, y_i] / B + R

T is estimated once and then fixed. Each example that the epoch visits counts once, with the
prediction of the step that visits it, made before the step learns from it in that epoch. A training
of a single epoch is all warm-up.

Reference: Patrini et al., CVPR 2017, arXiv 1609.03683. Differs from the paper in two ways. T: the
paper reads row c off the predicted distribution of one example, the one that is most confidently of
class c (or at a high quantile). That estimate rests on one prediction per class, chosen for its
large diagonal entry, and on calibrated probabilities, which a short training does not give. Counts
need only the argmax, which is right for most examples as long as every class keeps most of its own
labels, and average over N/C examples per class. Wrong predictions make T noisier than it is;
memorized labels, a weakness of the paper's estimate too, move it toward the identity. I, one
example per class, keeps plain cross-entropy for a class that is never predicted; ε bounds the loss.
Training: the paper trains a second network from scratch with T; here one training goes on, so that
the method costs as much as plain training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from ieg_core import backend
from ieg_core.data.label_set import LabelSet
from ieg_core.experiment.config import Config
from ieg_core.experiment.length import num_steps, steps_per_epoch
from ieg_core.experiment.methods import ForwardSettings
from ieg_core.methods.losses import forward_cross_entropy, softmax_cross_entropy
from ieg_core.methods.method import Batch, Method, Network, State, Tensor, Update, settings_of
from ieg_core.methods.supervised import PER_EXAMPLE, per_example_values


def _update(network: Network, config: Config, state: State, batch: Batch) -> Update:
    counts, start_epoch = state.method["counts"], state.method["start_epoch"]
    corrects = batch.epoch >= start_epoch
    transition = transition_matrix(counts, settings_of(config, ForwardSettings).transition_floor)

    def loss(params: Sequence[Tensor]) -> tuple[Tensor, tuple[Sequence[Tensor], Tensor]]:
        logits, _, stats = network.forward(params, state.stats, batch.images)
        losses = ops.where(
            corrects,
            forward_cross_entropy(logits, batch.labels, transition),
            softmax_cross_entropy(logits, batch.labels),
        )
        return ops.sum(losses) / batch.size, (stats, logits)

    value, (stats, logits), gradient = backend.gradients(loss, state.params)
    is_last_warmup_epoch = ops.cast(batch.epoch == start_epoch - 1.0, counts.dtype)
    predicted = ops.one_hot(ops.argmax(logits, axis=-1), counts.shape[0], dtype=counts.dtype)
    counted = backend.sum_over_replicas(ops.transpose(predicted) @ batch.labels)
    return Update(
        gradients=network.add_decay(gradient, state.params),
        stats=stats,
        method={"counts": counts + is_last_warmup_epoch * counted, "start_epoch": start_epoch},
        metrics={"loss": value},
        examples=per_example_values(logits, batch.labels),
    )


def transition_matrix(counts: Tensor, floor: float) -> Tensor:
    """Estimates P(given label | class) from counts of (predicted class, given label).

    T[c, ·] = (1 − ε)·(N + I)[c, ·] / Σ_k (N + I)[c, k] + ε/C

    Args:
      counts: N, float [C, C], row: predicted class, column: given label.
      floor: ε, in (0, 1).

    Returns:
      T, float [C, C]; each row sums to 1, each entry is at least ε/C.
    """
    num_classes = counts.shape[0]
    counts = counts + ops.eye(num_classes, dtype=counts.dtype)
    rows = counts / ops.sum(counts, axis=-1, keepdims=True)
    return (1.0 - floor) * rows + floor / num_classes


def init(config: Config, label_set: LabelSet) -> dict[str, Any]:
    """Returns the state of step 0.

    Returns:
      "counts", N, float32 [C, C], and "start_epoch", the first epoch with the corrected loss,
      float32 [], at least 1.
    """
    epoch_steps = steps_per_epoch(config, len(label_set.train_ids))
    epochs = num_steps(config, epoch_steps) / epoch_steps
    warmup = settings_of(config, ForwardSettings).warmup_fraction * epochs
    return {
        "counts": np.zeros((label_set.num_classes, label_set.num_classes), np.float32),
        # 0.29 · 100 is 28.999… in floating point.
        "start_epoch": np.array(max(1, int(warmup + 1e-9)), np.float32),
    }


FORWARD = Method(update=_update, examples=PER_EXAMPLE, init=init)
