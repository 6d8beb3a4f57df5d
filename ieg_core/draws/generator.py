# SPDX-License-Identifier: Apache-2.0
"""Random streams on the host: every draw is a pure function of (seed, purpose, index).

A resumed run therefore makes the same draws as an uninterrupted one, and both backends receive the
same numbers.
"""

import functools
import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ieg_core.errors import UserError

Ids = NDArray[np.int64]


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Opens the random stream of (seed, purpose, index).

    Args:
      seed: The run's seed, any integer.
      purpose: What the draws are for, for example "crop"; purposes never share a stream.
      index: The step, the epoch or another counter.

    Returns:
      A Philox generator whose 128-bit key is a hash of the three arguments.
    """
    digest = hashlib.sha256(f"{seed}\n{index}\n{purpose}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def batch_ids(train_ids: ArrayLike, batch_size: int, seed: int, step: int) -> Ids:
    """Returns the examples of one training step.

    Each epoch iterates over a new permutation, drawn from (seed, epoch), and drops the
    remainder: steps per epoch = ⌊n / B⌋.

    Args:
      train_ids: Indices to draw from, int [n].
      batch_size: B.
      seed: The run's seed.
      step: The step, from 0.

    Returns:
      int64 [B], without repetition.

    Raises:
      UserError: When B < 1 or B > n.
    """
    ids = np.asarray(train_ids, np.int64)
    if not 1 <= batch_size <= len(ids):
        raise UserError(
            f"a batch of {batch_size} cannot be drawn from {len(ids)} training examples: "
            f"expected a batch size from 1 to {len(ids)}"
        )
    epoch, position = divmod(step, len(ids) // batch_size)
    order = _epoch_order(len(ids), seed, epoch)
    return ids[order[position * batch_size : (position + 1) * batch_size]]


def balanced_batch(
    ids: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    batch_size: int,
    seed: int,
    step: int,
    purpose: str,
) -> Ids:
    """Draws a class-balanced batch, such as one of probe examples.

    Each class has ⌊B/C⌋ or ⌈B/C⌉ examples; the classes that get the extra one are drawn. Within a
    class no example is repeated before all others have occurred equally often. The draw depends
    on the set of examples, not on their order in `ids`.

    Args:
      ids: Indices to draw from, int [n].
      labels: Their classes, int [n], each in [0, C).
      num_classes: C.
      batch_size: B.
      seed: The run's seed.
      step: The step, from 0.
      purpose: The stream's name, for example "probe".

    Returns:
      int64 [B], in random order.

    Raises:
      UserError: When a class has no example, a label is not below C, or B < 1.
    """
    pool, classes = np.asarray(ids, np.int64), np.asarray(labels, np.int64)
    counts = np.bincount(classes, minlength=num_classes)
    if batch_size < 1 or len(counts) != num_classes or not counts.all():
        raise UserError(
            f"a balanced batch of {batch_size} cannot be drawn from {counts.tolist()} examples per "
            f"class: expected a batch size of at least 1 and examples of each of {num_classes} "
            "classes and of no others"
        )
    rng = generator(seed, purpose, step)
    quota = np.full(num_classes, batch_size // num_classes)
    quota[rng.permutation(num_classes)[: batch_size % num_classes]] += 1

    by_id = np.argsort(pool, kind="stable")
    # Class number plus a fraction below 1/2: sorting groups the classes, each in random order.
    order = by_id[np.argsort(classes[by_id] + rng.random(len(pool)) / 2, kind="stable")]
    starts = np.cumsum(counts) - counts
    drawn_class = np.repeat(np.arange(num_classes), quota)
    rank = np.arange(batch_size) - np.repeat(np.cumsum(quota) - quota, quota)
    batch = pool[order[starts[drawn_class] + rank % counts[drawn_class]]]
    return batch[rng.permutation(batch_size)]


def crop_flip(
    rng: np.random.Generator, batch_size: int, pad: int, flip: bool
) -> dict[str, NDArray[np.int32] | NDArray[np.bool_]]:
    """Draws pad-and-crop offsets and horizontal flips.

    Args:
      rng: The stream to draw from.
      batch_size: B.
      pad: Padding on each side, in pixels.
      flip: Whether to flip each image with probability ½; otherwise no image is flipped.

    Returns:
      offset_y and offset_x, int32 [B] in [0, 2·pad], and flip, bool [B].
    """
    return {
        "offset_y": rng.integers(0, 2 * pad + 1, batch_size, dtype=np.int32),
        "offset_x": rng.integers(0, 2 * pad + 1, batch_size, dtype=np.int32),
        "flip": (rng.random(batch_size) < 0.5) & flip,
    }


def fold_numbers(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Assigns examples to folds, stratified by given label.

    Args:
      labels: Given labels, int [n].
      folds: The number of folds, at least 1.
      seed: The run's seed.

    Returns:
      Each example's fold, int64 [n] in [0, folds).
    """
    order = generator(seed, "audit folds").permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]
    numbers = np.empty(len(labels), np.int64)
    numbers[by_label] = np.arange(len(labels)) % folds
    return numbers


@functools.lru_cache(maxsize=4)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> Ids:
    order = generator(seed, "epoch order", epoch).permutation(num_examples)
    order.flags.writeable = False
    return order
