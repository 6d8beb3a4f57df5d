# SPDX-License-Identifier: Apache-2.0
"""A base data set, read by random access."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ieg_core.classes import BASES

Images = NDArray[np.uint8]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Source:
    """The clean images and labels of one base data set, in their official order.

    Attributes:
      base: Name of the base data set.
      version: Where it was read from, for the record; two versions may hold the same data.
      class_names: C names, by class number.
      image_shape: (height, width, channels).
      train_labels: int32 [N].
      test_labels: int32 [M].
      train_images: Reads images by index, int [n] → uint8 [n, H, W, channels].
      test_images: The same for the test set.
      digest: SHA-256 over images and labels, hexadecimal; equal exactly if the data are.
    """

    base: str
    version: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_labels: Labels
    test_labels: Labels
    train_images: Callable[[ArrayLike], Images]
    test_images: Callable[[ArrayLike], Images]
    digest: str


def in_memory_source(
    base: str,
    version: str,
    train: tuple[Images, Labels],
    test: tuple[Images, Labels],
) -> Source:
    """Builds a source from arrays: (images uint8 [n, H, W, channels], labels int32 [n])."""
    train_images, test_images = train[0], test[0]
    return Source(
        base=base,
        version=version,
        class_names=BASES[base].class_names,
        image_shape=BASES[base].image_shape,
        train_labels=train[1],
        test_labels=test[1],
        train_images=lambda ids: train_images[np.asarray(ids)],
        test_images=lambda ids: test_images[np.asarray(ids)],
        digest=_digest(train, test),
    )


def _digest(*splits: tuple[Images, Labels]) -> str:
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(f"uint8 {images.shape} int32 {labels.shape}\n".encode())
        digest.update(np.ascontiguousarray(labels, "<i4").data)
        digest.update(np.ascontiguousarray(images, np.uint8).data)
    return digest.hexdigest()
