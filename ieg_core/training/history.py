# SPDX-License-Identifier: Apache-2.0
"""What a method said of each example, averaged over its visits in the last epochs.

One visit's λ is 0 or 1 and one visit's weight depends on its batch-mates: only the mean over visits
says something. The sums are part of the checkpoint.
"""

from collections.abc import Mapping

import numpy as np

from ieg_core.data.overlay import Overlay
from ieg_core.methods import Method

LAST_EPOCHS = 10

Sums = dict[str, np.ndarray]


def start(method: Method, overlay: Overlay) -> Sums:
    """Returns empty sums.

    Args:
      method: Names what it says of each example.
      overlay: N and C.

    Returns:
      "visits" int32 [N] and, for each name, float32 [N], or [N, C] for pseudo-labels.
    """
    num_examples = len(overlay.noisy_labels)
    sums = {"visits": np.zeros(num_examples, np.int32)}
    for name in method.examples:
        classes = [overlay.num_classes] if name == "pseudo_label" else []
        sums[name] = np.zeros([num_examples, *classes], np.float32)
    return sums


def first_step(num_steps: int, steps_per_epoch: int) -> int:
    """Returns from which step on visits count."""
    return max(0, num_steps - LAST_EPOCHS * steps_per_epoch)


def add(sums: Sums, ids: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
    """Adds the visits of several steps, in place.

    Args:
      sums: The sums so far.
      ids: Indices of the examples, int [K, B]; none comes twice in a step.
      values: What the method said of them, float [K, B, …] by name.
    """
    for step, batch in enumerate(ids):
        sums["visits"][batch] += 1
        for name, rows in values.items():
            sums[name][batch] += rows[step]


def means(sums: Sums) -> Sums:
    """Returns the means over visits, 0 for an example without one, and the visits themselves."""
    visits = sums["visits"]
    divisor = np.maximum(visits, 1)
    return {"visits": visits} | {
        name: total / divisor.reshape(-1, *[1] * (total.ndim - 1))
        for name, total in sums.items()
        if name != "visits"
    }
