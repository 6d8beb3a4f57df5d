# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST: 60,000 + 10,000 product photos of 28x28 gray pixels, in four IDX files.

An IDX file has two zero bytes, a byte for the type (8: unsigned byte), one for the number of
dimensions, their lengths as big-endian 32-bit numbers, and the values.

Reference: Xiao, Rasul and Vollgraf, 2017 (arXiv 1708.07747).
"""

import contextlib
import functools
import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.data.base import Source, Split, in_memory_source
from ieg_core.data.public.tfds import build, damaged, examples, find_prepared
from ieg_core.errors import UserError
from ieg_core.experiment.base_datasets import BASES
from ieg_core.host.folders import write_folder

NAME: Final = "fashion_mnist"
FOLDER: Final = "fashion-mnist"
SYSTEM_FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""
FIX: Final = (
    f"get the four files again into {FOLDER}/ (https://github.com/zalandoresearch/fashion-mnist), "
    "or install Debian's package dataset-fashion-mnist"
)

_FOLDERS: Final = (FOLDER, "", "FashionMNIST/raw")  # the last is torchvision's
_UNSIGNED_BYTE: Final = 8
_PREFIXES: Final = {"train": "train", "test": "t10k"}
_FIX_BUILD: Final = "delete that folder and run again"
_PIXELS: Final = BASES[NAME].image_shape[:2]


@dataclass(frozen=True)
class IdxLayout:
    """The expected content of the files.

    Attributes:
      examples: Number of examples by split.
      digest: The expected `Source.digest`; None if unknown.
      sha256: Known digests of the values of each file, by name; empty if unknown.
    """

    examples: Mapping[str, int]
    digest: str | None
    sha256: Mapping[str, str]


LAYOUT: Final = IdxLayout(
    examples={"train": 60_000, "test": 10_000},
    digest="20ce4ce589272b6f0d2aa356be12539ba8f5089a1277b8f2163f93d2f9df9689",
    sha256={
        "train-images-idx3-ubyte": (
            "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012"
        ),
        "train-labels-idx1-ubyte": (
            "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7"
        ),
        "t10k-images-idx3-ubyte": (
            "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a"
        ),
        "t10k-labels-idx1-ubyte": (
            "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"
        ),
    },
)


def open_fashion_mnist(
    data_dir: Path, layout: IdxLayout = LAYOUT, system_folder: Path = SYSTEM_FOLDER
) -> Source:
    """Opens Fashion-MNIST from its IDX files, plain or gzipped, otherwise from TFDS.

    The files are searched for in data_dir/fashion-mnist, in data_dir, in torchvision's
    data_dir/FashionMNIST/raw, and in the folder of Debian's package. Data read from TFDS are saved
    as data_dir/fashion-mnist; if that cannot be written, TFDS is read every time.

    Args:
      data_dir: The data directory.
      layout: The expected content of the files.
      system_folder: The folder of Debian's package.

    Returns:
      The source; identical, including its digest, for all origins.

    Raises:
      UserError: When the data are missing, truncated or altered.
    """
    folder = _find_folder((*(data_dir / name for name in _FOLDERS), system_folder))
    if folder is not None:
        train, test = (_read_split(folder, split, layout) for split in ("train", "test"))
    else:
        train, test = _read_tfds(data_dir, layout)
    source = in_memory_source(
        NAME,
        version="official",
        origin=str(folder) if folder is not None else f"TFDS in {data_dir}",
        train=train,
        test=test,
    )
    if layout.digest not in (None, source.digest):
        if folder is not None:
            raise _altered_file(folder, layout)
        raise UserError(
            f"the TFDS data set {NAME} in {data_dir} is altered: its digest is {source.digest}, "
            f"expected {layout.digest}; delete the data set and run again"
        )
    if folder is None:
        with contextlib.suppress(OSError):
            write_folder(data_dir / FOLDER, idx_files(train, test))
    return source


def idx_files(train: Split, test: Split) -> dict[str, bytes]:
    """Returns the contents of the four plain IDX files, by name."""
    files = {}
    for split, (images, labels) in (("train", train), ("test", test)):
        for what, values in (("images", images[:, 0]), ("labels", labels.astype(np.uint8))):
            header = struct.pack(
                f">BBBB{values.ndim}I", 0, 0, _UNSIGNED_BYTE, values.ndim, *values.shape
            )
            files[_file_name(split, what)] = header + np.ascontiguousarray(values).tobytes()
    return files


def _file_name(split: str, what: str) -> str:
    return f"{_PREFIXES[split]}-{what}-idx{3 if what == 'images' else 1}-ubyte"


def _find_folder(folders: tuple[Path, ...]) -> Path | None:
    """Returns the first folder that holds any of the files; the others must then be there too."""
    names = [_file_name(split, what) for split in _PREFIXES for what in ("images", "labels")]
    for folder in folders:
        if any((folder / f"{name}{ending}").is_file() for name in names for ending in ("", ".gz")):
            return folder
    return None


def _read_split(folder: Path, split: str, layout: IdxLayout) -> Split:
    count = layout.examples[split]
    images = _read_file(folder, _file_name(split, "images"), (count, *_PIXELS))
    labels = _read_file(folder, _file_name(split, "labels"), (count,))
    num_classes = BASES[NAME].num_classes
    if labels.max() >= num_classes:
        raise UserError(
            f"{folder / _file_name(split, 'labels')} holds the label {labels.max()}, expected "
            f"labels from 0 to {num_classes - 1}: altered or from another data set; {FIX}"
        )
    return Split(images[:, None], labels.astype(np.int32))


def _read_file(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Reads the values of an IDX file of the given shape."""
    path = folder / name
    is_plain = path.is_file()
    path = path if is_plain else folder / f"{name}.gz"
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, _UNSIGNED_BYTE, len(shape), *shape)
    expected = len(header) + math.prod(shape)
    try:
        with path.open("rb") if is_plain else gzip.open(path) as file:
            content = file.read(expected + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is truncated or altered ({error}): {FIX}") from error
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): expected an IDX file; {FIX}"
        ) from error
    if not content.startswith(header) or len(content) != expected:
        sizes = " x ".join(map(str, shape))
        size = len(content) if len(content) <= expected else f"more than {expected}"
        raise UserError(
            f"{path} has {size} bytes and the magic number {content[:4].hex() or 'none'}, "
            f"expected {expected} bytes and {header[:4].hex()} (IDX, {sizes}): truncated, altered "
            f"or from another data set; {FIX}"
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _altered_file(folder: Path, layout: IdxLayout) -> UserError:
    """Returns the error for a folder whose values differ from the official ones."""
    for split, count in layout.examples.items():
        for what, shape in (("images", (count, *_PIXELS)), ("labels", (count,))):
            name = _file_name(split, what)
            received = hashlib.sha256(_read_file(folder, name, shape).data).hexdigest()
            if received != layout.sha256.get(name):
                return UserError(
                    f"{folder / name} is altered or from another data set: the SHA-256 of its "
                    f"values is {received}, expected {layout.sha256.get(name)}; {FIX}"
                )
    return UserError(f"the files in {folder} changed while they were read: run again")


def _read_tfds(data_dir: Path, layout: IdxLayout) -> tuple[Split, Split]:
    """Reads the data set from data_dir/tfds or data_dir; builds it in the former if missing."""
    if not data_dir.is_dir() and (data_dir.exists() or not data_dir.absolute().parent.is_dir()):
        raise _unavailable(data_dir, "there is no such folder")
    builder = find_prepared(NAME, (data_dir / "tfds", data_dir), _FIX_BUILD) or build(
        NAME,
        data_dir,
        is_local=False,
        not_official=UserError(
            f"a downloaded file of {NAME} is not the official one (size or SHA-256 differs): {FIX}"
        ),
        unavailable=functools.partial(_unavailable, data_dir),
    )
    return (
        _read_tfds_split(builder, "train", layout.examples["train"]),
        _read_tfds_split(builder, "test", layout.examples["test"]),
    )


def _unavailable(data_dir: Path, reason: str) -> UserError:
    return UserError(f"{NAME} is not in {data_dir} and cannot be downloaded ({reason}): {FIX}")


def _read_tfds_split(builder: Any, split: str, expected: int) -> Split:
    height, width, _ = BASES[NAME].image_shape
    images = np.zeros((expected, 1, height, width), np.uint8)
    labels = np.zeros(expected, np.int32)
    order = sorted(range(expected), key=lambda index: _shuffling_hash(split, index))
    count = 0
    for count, example in enumerate(examples(builder, split, fix=_FIX_BUILD), start=1):
        if count <= expected:
            images[order[count - 1], 0] = example["image"][..., 0]
            labels[order[count - 1]] = example["label"]
    if count != expected:
        reason = f"its {split} set has {count} images, expected {expected}"
        raise damaged(Path(builder.data_path), reason, _FIX_BUILD)
    return Split(images, labels)


def _shuffling_hash(split: str, index: int) -> bytes:
    """Returns the key that TFDS sorts by, which restores the official order of the examples."""
    return hashlib.md5(f"{split}{index}".encode(), usedforsecurity=False).digest()
