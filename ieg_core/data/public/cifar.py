# SPDX-License-Identifier: Apache-2.0
"""CIFAR's official binary version: one or two label bytes and 3,072 pixel bytes per record."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.data.base import Split
from ieg_core.errors import UserError
from ieg_core.experiment.base_datasets import BASES
from ieg_core.host.folders import write_folder

Records = NDArray[np.uint8]

PIXEL_BYTES: Final = 3 * 32 * 32


@dataclass(frozen=True)
class CifarLayout:
    """The layout of a CIFAR data set on disk.

    Attributes:
      base: Name of the base data set.
      folder: The folder inside the archive.
      archive: The archive's file name.
      train_files: The training files in order.
      test_files: The test files.
      records_per_file: Number of records by file name.
      label_bytes: Number of label bytes before the pixels; the last one is the class.
      sha256: Known digests by file name; empty if unknown.
      digest: The expected `Source.digest`; None if unknown.
    """

    base: str
    folder: str
    archive: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    records_per_file: dict[str, int]
    label_bytes: int
    sha256: dict[str, str]
    digest: str | None

    @property
    def record_bytes(self) -> int:
        """Bytes per record."""
        return self.label_bytes + PIXEL_BYTES

    def files(self, split: str) -> tuple[str, ...]:
        """The files of "train" or "test"."""
        return {"train": self.train_files, "test": self.test_files}[split]

    def num_records(self, split: str) -> int:
        """The number of records in "train" or "test"."""
        return sum(self.records_per_file[name] for name in self.files(split))


_CIFAR10_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))

LAYOUTS: Final = {
    "cifar10": CifarLayout(
        base="cifar10",
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        train_files=_CIFAR10_TRAIN,
        test_files=("test_batch.bin",),
        records_per_file=dict.fromkeys((*_CIFAR10_TRAIN, "test_batch.bin"), 10_000),
        label_bytes=1,
        sha256={
            "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        },
        digest="6aed0542bd8475959c7617395dc569abd81f6bd154a2f53ca5c06e9931d32ccd",
    ),
    "cifar100": CifarLayout(
        base="cifar100",
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        train_files=("train.bin",),
        test_files=("test.bin",),
        records_per_file={"train.bin": 50_000, "test.bin": 10_000},
        label_bytes=2,
        sha256={
            "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
            "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
        },
        digest="41f487f38194cd465b903ebbb245fed1fc58b79931846a206b9c86fabc67ad87",
    ),
}


def read_records(folder: Path, split: str, layout: CifarLayout) -> Records:
    """Reads the records of one split.

    Args:
      folder: The folder with the .bin files.
      split: "train" or "test".
      layout: The expected layout.

    Returns:
      uint8 [n, label bytes + 3072], in the official order.

    Raises:
      UserError: When a file is missing, has a wrong size, or holds a label out of range.
    """
    parts = []
    for name in layout.files(split):
        path, records = folder / name, layout.records_per_file[name]
        expected = records * layout.record_bytes
        try:
            content = np.fromfile(path, np.uint8)
        except OSError as error:
            raise UserError(
                f"cannot read {path} ({error.strerror}): expected {expected} bytes; "
                f"{_fix(folder, layout)}"
            ) from error
        if content.size != expected:
            raise UserError(
                f"{path} has {content.size} bytes, expected {expected} ({records} records of "
                f"{layout.record_bytes} bytes): truncated or altered; {_fix(folder, layout)}"
            )
        part = content.reshape(records, layout.record_bytes)
        highest = int(part[:, layout.label_bytes - 1].max())
        num_classes = BASES[layout.base].num_classes
        if highest >= num_classes:
            raise UserError(
                f"{path} holds the label {highest}, expected labels from 0 to {num_classes - 1}: "
                f"altered or from another data set; {_fix(folder, layout)}"
            )
        parts.append(part)
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def write_records(folder: Path, train: Records, test: Records, layout: CifarLayout) -> None:
    """Writes a folder of records atomically; an existing folder is left unchanged.

    Args:
      folder: The folder to write.
      train: Training records, uint8 [n, label bytes + 3072].
      test: Test records, uint8 [m, label bytes + 3072].
      layout: The layout to write.

    Raises:
      OSError: When the folder cannot be written.
    """
    files = {}
    for split, records in (("train", train), ("test", test)):
        names = layout.files(split)
        stops = np.cumsum([layout.records_per_file[name] for name in names])
        for name, part in zip(names, np.split(records, stops[:-1]), strict=True):
            files[name] = np.ascontiguousarray(part).data
    write_folder(folder, files)


def split_of(records: Records, layout: CifarLayout) -> Split:
    """Splits records, uint8 [n, label bytes + 3072], into images (a view) and classes."""
    images = records[:, layout.label_bytes :].reshape(-1, 3, 32, 32)
    return Split(images, records[:, layout.label_bytes - 1].astype(np.int32))


def altered_file(folder: Path, layout: CifarLayout) -> UserError:
    """Returns the error for a folder whose content differs from the official one."""
    for name, expected in layout.sha256.items():
        with (folder / name).open("rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
        if received != expected:
            return UserError(
                f"{folder / name} is altered: its SHA-256 is {received}, expected {expected}; "
                f"{_fix(folder, layout)}"
            )
    return UserError(f"the files in {folder} changed while they were read: run again")


def _fix(folder: Path, layout: CifarLayout) -> str:
    return f"unpack the official {layout.archive} again in {folder.parent}"
