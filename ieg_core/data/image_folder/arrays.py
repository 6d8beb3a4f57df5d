# SPDX-License-Identifier: Apache-2.0
"""One's own images as arrays: a data directory with one file, `arrays.safetensors`.

It holds "train_images" uint8 [n, H, W, channels] and "train_labels" int32 [n], the same for "test",
and perhaps for "probe"; class names are in its metadata.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import ArrayLike
from safetensors import SafetensorError

from ieg_core.data.base import Images, Labels, Source
from ieg_core.data.image_folder.listing import PROBE, TEST, TRAIN
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig

ARRAYS: Final = "arrays.safetensors"

Part = tuple[Images, Labels]


def open_arrays(base: str, data_dir: Path, images: ImagesConfig) -> Source:
    """Opens a data directory that holds arrays.

    Args:
      base: Name of the base data set that it stands for.
      data_dir: The directory.
      images: Its size must be the longer side of the images; the rest is not needed.

    Returns:
      The source.

    Raises:
      UserError: The file is damaged, or its arrays are not what they must be.
    """
    path = data_dir / ARRAYS
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            class_names = tuple(json.loads((file.metadata() or {})["class_names"]))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): write it again") from error
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
            f"images.size={images.size}: say images.size={max(shape[:2])}"
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
    """Writes a data directory, named by its content, under a folder.

    Args:
      root: The folder, made if need be.
      parts: "train", "test" and perhaps "probe": images uint8 [n, H, W, channels] and labels int32
        [n].
      class_names: C names.

    Returns:
      The data directory.

    Raises:
      UserError: The arrays are not what they must be, or the folder cannot be written to.
    """
    check_parts(parts, class_names)
    arrays = {}
    for name, (pixels, labels) in parts.items():
        arrays[f"{name}_images"] = np.ascontiguousarray(pixels)
        arrays[f"{name}_labels"] = np.ascontiguousarray(labels)
    data_dir = root / f"arrays-{_digest(parts, class_names)[:12]}"
    if (data_dir / ARRAYS).exists():
        return data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=data_dir)
        os.close(handle)
        try:
            metadata = {"class_names": json.dumps(list(class_names))}
            safetensors.numpy.save_file(arrays, temporary, metadata=metadata)
            os.chmod(temporary, 0o644)
            os.replace(temporary, data_dir / ARRAYS)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise UserError(
            f"cannot write {data_dir / ARRAYS} ({error.strerror}): make room or choose another "
            "folder"
        ) from error
    return data_dir


def check_parts(parts: Mapping[str, Part], class_names: Sequence[str]) -> None:
    """Raises UserError unless all parts hold images of one shape and labels of the classes."""
    if len(class_names) < 2 or len(set(class_names)) != len(class_names):
        raise UserError(f"expected at least two classes, each once, received {list(class_names)}")
    shape = parts[TRAIN][0].shape[1:]
    for name, (pixels, labels) in parts.items():
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
            raise UserError(
                f"the {name} images are {pixels.dtype} {pixels.shape}: expected uint8 [n, height, "
                "width, channels] with 1 or 3 channels"
            )
        if pixels.shape[1:] != shape or min(shape) < 1 or len(pixels) == 0:
            raise UserError(
                f"the {name} images have the shape {pixels.shape}, those to train on {shape}: "
                "expected at least one image, all of one size"
            )
        if labels.dtype != np.int32 or labels.shape != (len(pixels),):
            raise UserError(
                f"the {name} labels are {labels.dtype} {labels.shape}: expected int32 "
                f"[{len(pixels)}], one an image"
            )
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise UserError(
                f"the {name} labels run from {labels.min()} to {labels.max()}: expected from 0 to "
                f"{len(class_names) - 1}, the number of classes less one"
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
