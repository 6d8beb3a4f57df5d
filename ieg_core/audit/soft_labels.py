# SPDX-License-Identifier: Apache-2.0
"""What a finished run believes of each training label, to train another network on.

For ieg and fsr it is q, the posterior that their audit scores labels by (`audit.posterior`). Other
methods record predictions alone, p̄, from which it follows with the estimated noise:

    q_i(c) ∝ p̄_i(c) T[c, y_i],   T by EM

p̄ is the mean over the whole run, as in `audit.scores`, or the prediction at the end. An example of
the run's probe has its clean label, which the run was given. No other clean label is read.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.findings import read_examples
from ieg_core.audit.posterior import estimate_transition, posterior
from ieg_core.data.label_set import LabelSet


def soft_labels(folder: Path, data_dir: Path) -> tuple[LabelSet, NDArray[np.float32]]:
    """Reads the posterior of a finished run.

    Args:
      folder: The run's folder.
      data_dir: Folder of the base data sets.

    Returns:
      The run's label set, and q, float32 [N, C]; 0 for examples that it did not train on.

    Raises:
      UserError: When the run cannot be audited.
    """
    _, label_set, _, examples = read_examples(folder, data_dir)
    return label_set, judge(label_set, examples)


def judge(label_set: LabelSet, examples: Mapping[str, np.ndarray]) -> NDArray[np.float32]:
    """Returns q, float32 [N, C], from what a run recorded (`training.history`), [N, …] each."""
    ids, given = label_set.train_ids, label_set.noisy_labels[label_set.train_ids]
    believed = np.zeros((len(label_set.noisy_labels), label_set.num_classes), np.float32)
    if "label_posterior" in examples:
        believed[ids] = examples["label_posterior"][ids]
    else:
        name = "final_prediction" if "final_prediction" in examples else "prediction"
        predicted = examples[name][ids].astype(np.float64)
        believed[ids] = posterior(predicted, given, estimate_transition(predicted, given))
    trusted = label_set.probe_ids
    believed[trusted] = np.eye(label_set.num_classes)[label_set.clean_labels[trusted]]
    return believed
