# SPDX-License-Identifier: Apache-2.0
"""What a method said of each example, averaged over its visits.

One visit's λ is 0 or 1 and one visit's weight depends on its batch-mates: only the mean over visits
says something, and only late ones are those of a trained network. Losses and predictions are
averaged over the whole run instead: a network that learns wrong labels by heart knows them as well
as right ones in the end, and the mean remembers that it learnt them late. The sums are part of the
checkpoint.

A method with pseudo-labels of its own (ieg, fsr) does not learn wrong labels by heart: what it
believes of its examples is what its averaged network says at the end, which is better than its
pseudo-labels' mean over the last epochs, above all in a short training (docs/RESULTS.md, "Label
audit"): its predictions, and the distribution over the classes that its features, its predictions
and the given label speak for together (`training.label_posterior`).
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
      method: Names what it says of each example.
      label_set: N and C.

    Returns:
      "visits" int32 [N], those of the last epochs; for each name float32 [N], or [N, C] for the
      DISTRIBUTIONS; and where one of WHOLE_RUN is among them, "all_visits" int32 [N].
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
    """Returns from which step on visits count."""
    return max(0, num_steps - LAST_EPOCHS * steps_per_epoch)


def add(sums: Sums, ids: np.ndarray, values: Mapping[str, np.ndarray], first: int) -> None:
    """Adds the visits of several steps, in place.

    Args:
      sums: The sums so far.
      ids: Indices of the examples, int [K, B]; none comes twice in a step.
      values: What the method said of them, float [K, B, …] by name.
      first: The first of the K steps that belongs to the last epochs.
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
    """Returns the means over visits, 0 for an example without one, and the visits themselves."""
    found: Sums = {name: sums[name] for name in ("visits", "all_visits") if name in sums}
    for name, total in sums.items():
        if name not in found:
            divisor = np.maximum(found["all_visits" if name in WHOLE_RUN else "visits"], 1)
            found[name] = total / divisor.reshape(-1, *[1] * (total.ndim - 1))
    return found
