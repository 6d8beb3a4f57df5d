# SPDX-License-Identifier: Apache-2.0
"""A base data set with random access to its images."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ieg_core.experiment.base_datasets import BASES

Images = NDArray[np.uint8]
Labels = NDArray[np.int32]

_DIGEST_CHUNK = 4096


class Split(NamedTuple):
    """One part of a data set, held in memory.

    Attributes:
      images: uint8 [n, channels, H, W], channels first as in the official CIFAR files; may be a
        view into a larger array.
      labels: int32 [n].
    """

    images: Images
    labels: Labels


@dataclass(frozen=True)
class EvalSet:
    """An additional test set.

    Attributes:
      labels: int32 [M].
      images: Reads images by index, int [n] → uint8 [n, H, W, channels].
    """

    labels: Labels
    images: Callable[[ArrayLike], Images]


@dataclass(frozen=True)
class ImageFiles:
    """The files of one part of a data set.

    Attributes:
      root: The folder that `paths` are relative to.
      paths: n files.
      digests: SHA-256 of each file's content, hexadecimal.
    """

    root: Path
    paths: Sequence[str]
    digests: Sequence[str]


@dataclass(frozen=True)
class Source:
    """The clean images and labels of one base data set, in their official order.

    Attributes:
      base: Name of the base data set.
      version: The edition of the data; independent of where the data are read from.
      origin: Where the data are read from, for messages.
      class_names: C names, by class number.
      image_shape: (height, width, channels).
      train_labels: int32 [N].
      test_labels: int32 [M].
      train_images: Reads images by index, int [n] → uint8 [n, H, W, channels].
      test_images: Reads test images by index, int [n] → uint8 [n, H, W, channels].
      digest: SHA-256 over images and labels, hexadecimal; equal only for identical data.
      probe_ids: Indices of the training examples that the data set reserves as its clean probe,
        int64; None if a probe is to be drawn from all of them.
      crops: For images too large to hold in memory: reads random crops, (int [n], float64
        [n, 4] in [0, 1)) → uint8 [n, H, W, channels], see
        `ieg_core.data.image_folder.decode.crop_box`; None if all images are held in memory.
      eval_sets: Additional test sets, by name.
      held_out: Files that were held out of the training set to be the test set, relative to the
        data directory.
      paths: The files of the training examples, relative to the data directory; empty if the
        images are not files.
      files: The files of the training examples, "train", of the test examples, "test", and of
        each of `eval_sets`, by its name; empty if the images are not files.
      notes: Problems found while reading, for the label set's manifest: broken files, files in
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
    held_out: Sequence[str] = ()
    paths: Sequence[str] = ()
    files: Mapping[str, ImageFiles] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


def in_memory_source(base: str, version: str, origin: str, train: Split, test: Split) -> Source:
    """Builds a source whose images are all held in memory as uint8.

    Args:
      base: Name of the base data set, a key of BASES.
      version: The edition of the data.
      origin: Where the data are read from, for messages.
      train: The training set.
      test: The test set.

    Returns:
      The source.
    """
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
        # In chunks, because a non-contiguous view must be copied first.
        for start in range(0, len(images), _DIGEST_CHUNK):
            digest.update(np.ascontiguousarray(images[start : start + _DIGEST_CHUNK]).data)
    return digest.hexdigest()
