# SPDX-License-Identifier: Apache-2.0
"""A base data set, read by random access."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ieg_core.experiment.base_datasets import BASES

Images = NDArray[np.uint8]
Labels = NDArray[np.int32]

_DIGEST_CHUNK = 4096


class Split(NamedTuple):
    """One part of a data set as it is held in memory.

    Attributes:
      images: uint8 [n, channels, H, W], channels first as in the official CIFAR files; a view
        into a larger array will do.
      labels: int32 [n].
    """

    images: Images
    labels: Labels


@dataclass(frozen=True)
class EvalSet:
    """A further test set.

    Attributes:
      labels: int32 [M].
      images: Reads images by index, int [n] → uint8 [n, H, W, channels].
    """

    labels: Labels
    images: Callable[[ArrayLike], Images]


@dataclass(frozen=True)
class Source:
    """The clean images and labels of one base data set, in their official order.

    Attributes:
      base: Name of the base data set.
      version: Which edition of the data this is; the same wherever it was read from.
      origin: Where it was read from, for messages.
      class_names: C names, by class number.
      image_shape: (height, width, channels).
      train_labels: int32 [N].
      test_labels: int32 [M].
      train_images: Reads images by index, int [n] → uint8 [n, H, W, channels].
      test_images: The same for the test set.
      digest: SHA-256 over images and labels, hexadecimal; equal exactly if the data are.
      probe_ids: Training examples that the data set itself sets aside as its clean probe, int64;
        None where a probe is drawn from all of them.
      crops: For images too large to be held in memory: reads random crops, (int [n], float64
        [n, 4] in [0, 1)) → uint8 [n, H, W, channels], see
        `ieg_core.data.image_folder.decode.crop_box`; None where all images fit into memory.
      eval_sets: Further test sets, by name.
      paths: The files of the training examples, relative to the data directory; empty where images
        are no files.
      notes: What reading it brought to light, for the label set's manifest: broken files, files in
        both training and test set.
    """

    base: str
    version: str
    origin: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_labels: Labels
    test_labels: Labels
    train_images: Callable[[ArrayLike], Images]
    test_images: Callable[[ArrayLike], Images]
    digest: str
    probe_ids: NDArray[np.int64] | None = None
    crops: Callable[[ArrayLike, NDArray[np.float64]], Images] | None = None
    eval_sets: Mapping[str, EvalSet] = field(default_factory=dict)
    paths: Sequence[str] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


def in_memory_source(base: str, version: str, origin: str, train: Split, test: Split) -> Source:
    """Builds a source whose images are all held in memory as uint8."""
    return Source(
        base=base,
        version=version,
        origin=origin,
        class_names=BASES[base].class_names,
        image_shape=BASES[base].image_shape,
        train_labels=train.labels,
        test_labels=test.labels,
        train_images=lambda ids: _channels_last(train.images[np.asarray(ids, np.int64)]),
        test_images=lambda ids: _channels_last(test.images[np.asarray(ids, np.int64)]),
        digest=_digest(train, test),
    )


def _channels_last(images: Images) -> Images:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _digest(*splits: Split) -> str:
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(f"uint8 {images.shape} int32 {labels.shape}\n".encode())
        digest.update(np.ascontiguousarray(labels, "<i4").data)
        # In chunks, because a view between label bytes has to be copied first.
        for start in range(0, len(images), _DIGEST_CHUNK):
            digest.update(np.ascontiguousarray(images[start : start + _DIGEST_CHUNK]).data)
    return digest.hexdigest()
