# SPDX-License-Identifier: Apache-2.0
"""Reads TFDS builds of images and labels from before TFDS wrote down their features (version 4).

Such a folder has `label.labels.txt`, a class a line, and `<name>-<split>.tfrecord-<i>-of-<n>`. A
TFRecord file is records of 8 bytes of length, 4 of a checksum, the content, 4 of a checksum; the
content a protobuf message tf.train.Example, a map from feature to values. TFDS itself reads it only
by the class that built it, which it no longer has.

Reference: https://www.tensorflow.org/tutorials/load_data/tfrecord and
https://protobuf.dev/programming-guides/encoding.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ieg_core.errors import UserError

LABELS: Final = "label.labels.txt"
_NAME: Final = re.compile(r".+-(\w+)\.tfrecord-(\d{5})-of-(\d{5})")
_VARINT, _BYTES = 0, 2
_SKIPPED: Final = {1: 8, 5: 4}


class DamagedError(ValueError):
    """The bytes are no records, or the records no examples; the message says which."""


def splits_of(folder: Path) -> dict[str, list[Path]]:
    """Returns the files of each split, in order.

    Raises:
      UserError: Some of a split's files are not there.
    """
    found: dict[str, list[Path]] = {}
    expected: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(match[1], []).append(path)
            expected[match[1]] = int(match[3])
    for split, files in found.items():
        if len(files) != expected[split]:
            raise UserError(
                f"{folder} has {len(files)} of the {expected[split]} files of {split}: get the "
                "others"
            )
    return found


def examples(files: list[Path]) -> Iterator[tuple[int, bytes]]:
    """Yields label and encoded image of every example.

    Raises:
      UserError: A file is damaged, or has other features.
    """
    for path in files:
        try:
            for record in _records(path):
                values = _features(record)
                yield int(values["label"]), bytes(values["image"])
        except (DamagedError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"{path} holds no TFRecords of image and label ({error}): get it again, or put the "
                "images into class folders"
            ) from error


def _records(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file:
        while head := file.read(12):
            length = int.from_bytes(head[:8], "little")
            if len(head) < 12 or length > path.stat().st_size:
                raise DamagedError("it is truncated")
            content = file.read(length)
            if len(content) < length or len(file.read(4)) < 4:
                raise DamagedError("it is truncated")
            yield memoryview(content)


def _features(example: memoryview) -> dict[str, int | memoryview]:
    """Returns the first value of each feature: Example.features.feature, a map."""
    values: dict[str, int | memoryview] = {}
    for features in _fields(example, 1):
        for entry in _fields(_message(features), 1):
            (key,), (feature,) = (list(_fields(_message(entry), part)) for part in (1, 2))
            name = bytes(_message(key)).decode(errors="replace")
            # Feature is one of BytesList (1), FloatList (2) and Int64List (3), each of values (1).
            for listed in _fields(_message(feature), 1):
                values[name] = next(_fields(_message(listed), 1))
            for listed in _fields(_message(feature), 3):
                value = next(_fields(_message(listed), 1))
                values[name] = value if isinstance(value, int) else _varint(value, 0)[0]
    return values


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise DamagedError("a record in it is no example")
    return value


def _fields(message: memoryview, wanted: int) -> Iterator[int | memoryview]:
    """Yields the values of a message's field of one number."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        value: int | memoryview
        if kind == _VARINT:
            value, place = _varint(message, place)
        else:
            length = _SKIPPED.get(kind, 0)
            if kind == _BYTES:
                length, place = _varint(message, place)
            value, place = message[place : place + length], place + length
            if place > len(message) or kind not in (_BYTES, *_SKIPPED):
                raise DamagedError("a record in it is no example")
        if number == wanted:
            yield value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Reads a number of seven bits a byte, the lowest first; returns it and the place behind."""
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place
        if shift > 63:
            raise DamagedError("a record in it is no example")
