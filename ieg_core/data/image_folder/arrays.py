# SPDX-License-Identifier: Apache-2.0
"""User images as arrays: a data directory with one file, `arrays.safetensors`.

It holds "train_images" uint8 [n, H, W, channels] and "train_labels" int32 [n], the same for "test"
and optionally for "probe"; its metadata hold the class names.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from ieg_core.data.base import Images, Labels, Source
from ieg_core.data.image_folder.listing import PROBE, TEST, TRAIN
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig
from ieg_core.host.files import write_bytes_atomic
from ieg_core.store.arrays import encode, read, read_cached

ARRAYS: Final = "arrays.safetensors"

_REMEDY: Final = "write it again"

Part = tuple[Images, Labels]


def open_arrays(base: str, data_dir: Path, images: ImagesConfig) -> Source:
    """Opens a data directory that holds arrays.

    Args:
      base: Name of the base data set that the directory provides.
      data_dir: The directory.
      images: `images.size` must be the longer side of the images, in pixels; other fields are
        ignored.

    Returns:
      The source.

    Raises:
      UserError: When the file is damaged, or its arrays are invalid.
    """
    path = data_dir / ARRAYS
    try:
        arrays, facts = read(path, _REMEDY)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: {_REMEDY}") from error
    class_names = tuple(facts["class_names"])
    try:
        parts = {
            name: (arrays[f"{name}_images"], arrays[f"{name}_labels"])
            for name in (TRAIN, TEST, PROBE)
            if name != PROBE or f"{PROBE}_images" in arrays
        }
    except KeyError as error:
        raise UserError(f"{path} has no {error}: write it again") from error
    check_parts(parts, class_names)
    shape = parts[TRAIN][0].shape[1:]
    if max(shape[:2]) != images.size:
        raise UserError(
            f"the images in {path} have {shape[0]}×{shape[1]} pixels, received "
            f"images.size={images.size}: set images.size={max(shape[:2])}"
        )
    trained = [parts[TRAIN], *([parts[PROBE]] if PROBE in parts else [])]
    pixels = np.concatenate([part[0] for part in trained])
    labels = np.concatenate([part[1] for part in trained])

    def reader(held: Images) -> Callable[[ArrayLike], Images]:
        return lambda ids: held[np.asarray(ids, np.int64)]

    return Source(
        base=base,
        version="arrays",
        origin=str(path),
        class_names=class_names,
        image_shape=(shape[0], shape[1], shape[2]),
        train_labels=labels,
        test_labels=parts[TEST][1],
        train_images=reader(pixels),
        test_images=reader(parts[TEST][0]),
        digest=_digest(parts, class_names),
        probe_ids=np.arange(len(parts[TRAIN][1]), len(labels)) if PROBE in parts else None,
    )


def write_arrays(root: Path, parts: Mapping[str, Part], class_names: Sequence[str]) -> Path:
    """Writes a data directory, named by its content, into a folder.

    Args:
      root: The folder, created if missing.
      parts: "train", "test" and optionally "probe": images uint8 [n, H, W, channels] and labels
        int32 [n].
      class_names: C names.

    Returns:
      The data directory.

    Raises:
      UserError: When the arrays are invalid, or the folder is not writable.
    """
    check_parts(parts, class_names)
    arrays = {}
    for name, (pixels, labels) in parts.items():
        arrays[f"{name}_images"] = np.ascontiguousarray(pixels)
        arrays[f"{name}_labels"] = np.ascontiguousarray(labels)
    data_dir = root / f"arrays-{_digest(parts, class_names)[:12]}"
    path = data_dir / ARRAYS
    if read_cached(path) is None:
        write_bytes_atomic(path, encode(arrays, {"class_names": list(class_names)}))
    return data_dir


def check_parts(parts: Mapping[str, Part], class_names: Sequence[str]) -> None:
    """Checks that all parts hold images of one shape and labels of the classes.

    Args:
      parts: Images uint8 [n, H, W, 1 or 3] and labels int32 [n] in [0, C), by part.
      class_names: C names, at least two, without repetition.

    Raises:
      UserError: When an array is invalid, or a part other than "test" lacks a class.
    """
    if len(class_names) < 2 or len(set(class_names)) != len(class_names):
        raise UserError(
            f"received the classes {list(class_names)}: expected at least two, without repetition"
        )
    shape = parts[TRAIN][0].shape[1:]
    for name, (pixels, labels) in parts.items():
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
            raise UserError(
                f"the {name} images are {pixels.dtype} {pixels.shape}: expected uint8 [n, height, "
                "width, channels] with 1 or 3 channels"
            )
        if pixels.shape[1:] != shape or min(shape) < 1 or len(pixels) == 0:
            raise UserError(
                f"the {name} images have shape {pixels.shape}, the training images {shape}: "
                "expected at least one image, all of one size"
            )
        if labels.dtype != np.int32 or labels.shape != (len(pixels),):
            raise UserError(
                f"the {name} labels are {labels.dtype} {labels.shape}: expected int32 "
                f"[{len(pixels)}], one per image"
            )
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise UserError(
                f"the {name} labels range from {labels.min()} to {labels.max()}: expected from 0 "
                f"to {len(class_names) - 1}, the number of classes minus one"
            )
        missing = set(range(len(class_names))) - set(labels.tolist())
        if name != TEST and missing:
            raise UserError(
                f"the part {name} has no image of class {class_names[min(missing)]!r}: expected at "
                "least one of every class"
            )


def _digest(parts: Mapping[str, Part], class_names: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(list(class_names)).encode())
    for name, (pixels, labels) in parts.items():
        digest.update(f"{name} uint8 {pixels.shape} int32\n".encode())
        digest.update(np.ascontiguousarray(labels, "<i4").data)
        digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
