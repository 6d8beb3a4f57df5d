# SPDX-License-Identifier: Apache-2.0
"""A second training of a network, on the label posterior of a finished run.

    x̃_i = β_i x_i + (1 − β_i) x_{π(i)},   q̃_i = β_i q_i + (1 − β_i) q_{π(i)},   β ~ Beta(α, α)
    L = −Σ_i Σ_c q̃_i(c) log p_c(x̃_i) / B + R

q is what the teacher's audit believes of each example given its image and its label
(`ieg_core.audit.soft_labels`), fixed before the first step; of the teacher's probe it is the clean
label, which the teacher knew. The network starts from new initial values. An example keeps the
larger share of its mixture (`ieg_core.methods.mixup`); with α = 0 nothing is mixed.

No paper: training on the labels that a first network believes in is old; this is the form that
`ieg_core.features.head` has for heads. MixUp: Zhang et al. 2018 (arXiv:1710.09412).
"""

from ieg_core import backend
from ieg_core.experiment.config import Config
from ieg_core.methods.method import Batch, Method, Network, State, Update
from ieg_core.methods.mixup import mix_batch
from ieg_core.methods.supervised import PER_EXAMPLE, fit_targets


def _update(network: Network, config: Config, state: State, batch: Batch) -> Update:
    images, targets = batch.images, batch.soft_labels
    if config.method_settings.soft_label_mixup:
        images, targets = mix_batch(images, targets, batch.mixing, backend.gather_replicas)
    return fit_targets(network, state, images, targets, batch.size, batch.labels)


RETRAIN = Method(update=_update, examples=PER_EXAMPLE)
