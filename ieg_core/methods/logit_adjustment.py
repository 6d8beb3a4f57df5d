# SPDX-License-Identifier: Apache-2.0
"""Logit adjustment: plain training for a balanced test set when classes differ in size.

    π_c = max(n_c, 1) / Σ_k n_k          n_c: training examples with the given label c
    L = Σ_i ℓ(f(x_i; θ) + τ log π, y_i) / B + R

Training explains the classes' sizes by the added term, so that f itself does not prefer the common
classes; predictions are made by f alone. τ = 1 is consistent for the balanced error.

Reference: Menon et al., ICLR 2021, arXiv 2007.07314, its logit-adjusted softmax cross-entropy. With
wrong labels π is that of the given labels, since the true ones are unknown. Differs: the max, which
keeps the logarithm finite for a class that no training example is given, and label smoothing, which
is off by default.
"""

from typing import Any

import numpy as np

from ieg_core.data.label_set import LabelSet
from ieg_core.experiment.config import Config
from ieg_core.experiment.methods import LogitAdjustmentSettings
from ieg_core.methods.losses import smooth_labels
from ieg_core.methods.method import Batch, Method, Network, State, Update, settings_of
from ieg_core.methods.supervised import PER_EXAMPLE, fit_targets


def _update(network: Network, config: Config, state: State, batch: Batch) -> Update:
    settings = settings_of(config, LogitAdjustmentSettings)
    return fit_targets(
        network,
        state,
        batch.images,
        smooth_labels(batch.labels, settings.label_smoothing),
        batch.size,
        batch.labels,
        adjustment=settings.tau * state.method["log_prior"],
    )


def init(config: Config, label_set: LabelSet) -> dict[str, Any]:
    """Returns the state of every step: "log_prior", log π, float32 [C]."""
    del config
    given = label_set.noisy_labels[label_set.train_ids]
    counts = np.bincount(given, minlength=label_set.num_classes)
    return {"log_prior": np.log(np.maximum(counts, 1) / len(given)).astype(np.float32)}


LOGIT_ADJUSTMENT = Method(update=_update, examples=PER_EXAMPLE, init=init)
