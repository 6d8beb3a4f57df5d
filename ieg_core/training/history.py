# SPDX-License-Identifier: Apache-2.0
"""Per-example outputs of a method, averaged over the visits of each example.

A single visit's λ is 0 or 1, and a single visit's weight depends on the rest of the batch. Only
the mean over visits is informative, and only late visits reflect a trained network. Losses and
predictions are averaged over the whole run instead: a network that memorizes wrong labels fits
them as well as correct ones at the end, but the mean shows that it learned them late. The sums are
part of the checkpoint.

Methods with pseudo-labels (ieg, fsr) do not memorize wrong labels. For them, the averaged network
at the end of training gives better estimates than the mean of the pseudo-labels over the last
epochs, above all in short trainings (docs/RESULTS.md, "Label audit"). Its predictions are kept,
and the class distribution that combines its features, its predictions and the given label
(`ieg_core.audit.posterior.label_posterior`).
"""

from collections.abc import Mapping

import numpy as np

from ieg_core.data.label_set import LabelSet
from ieg_core.methods.method import Method

LAST_EPOCHS = 10
WHOLE_RUN = ("given_label_loss", "prediction")
DISTRIBUTIONS = ("prediction",)
_NOT_KEPT = ("pseudo_label",)
FINAL = "final_prediction"
POSTERIOR = "label_posterior"

Sums = dict[str, np.ndarray]


def start(method: Method, label_set: LabelSet) -> Sums:
    """Returns empty sums.

    Args:
      method: Names its per-example outputs.
      label_set: Determines N and C.

    Returns:
      "visits" int32 [N], counted in the last epochs; float32 [N] for each output, or [N, C] for
      those in DISTRIBUTIONS; and "all_visits" int32 [N] if one of them is in WHOLE_RUN.
    """
    num_examples = len(label_set.noisy_labels)
    kept = [name for name in method.examples if name not in _NOT_KEPT]
    sums = {"visits": np.zeros(num_examples, np.int32)}
    if set(kept) & set(WHOLE_RUN):
        sums["all_visits"] = np.zeros(num_examples, np.int32)
    for name in kept:
        classes = [label_set.num_classes] if name in DISTRIBUTIONS else []
        sums[name] = np.zeros([num_examples, *classes], np.float32)
    return sums


def first_step(num_steps: int, steps_per_epoch: int) -> int:
    """Returns the first step whose visits count: max(0, T − LAST_EPOCHS·E)."""
    return max(0, num_steps - LAST_EPOCHS * steps_per_epoch)


def add(sums: Sums, ids: np.ndarray, values: Mapping[str, np.ndarray], first: int) -> None:
    """Adds the visits of several steps, in place.

    Args:
      sums: The sums so far.
      ids: Indices of the examples, int [K, B], distinct within a step.
      values: The method's outputs by name, float [K, B, …].
      first: Index of the first of the K steps that is in the last epochs.
    """
    for step, batch in enumerate(ids):
        recent = step >= first
        sums["visits"][batch] += recent
        if "all_visits" in sums:
            sums["all_visits"][batch] += 1
        for name, rows in values.items():
            if name in sums and (recent or name in WHOLE_RUN):
                sums[name][batch] += rows[step]


def means(sums: Sums) -> Sums:
    """Returns the means over visits, 0 for an example without a visit, and the visit counts."""
    averaged: Sums = {name: sums[name] for name in ("visits", "all_visits") if name in sums}
    for name, total in sums.items():
        if name not in averaged:
            divisor = np.maximum(averaged["all_visits" if name in WHOLE_RUN else "visits"], 1)
            averaged[name] = total / divisor.reshape(-1, *[1] * (total.ndim - 1))
    return averaged
