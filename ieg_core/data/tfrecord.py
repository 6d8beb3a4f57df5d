# SPDX-License-Identifier: Apache-2.0
"""Reads TFDS builds of images and labels from before TFDS wrote down their features (version 4).

Such a folder has `label.labels.txt`, a class a line, and `<name>-<split>.tfrecord-<i>-of-<n>`,
whose records are messages tf.train.Example. TFDS itself reads it only by the class that built it,
which it no longer has.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ieg_core.errors import UserError

LABELS: Final = "label.labels.txt"
_NAME: Final = re.compile(r".+-(\w+)\.tfrecord-(\d{5})-of-(\d{5})")


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


def examples(files: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    """Yields label and encoded image of every example.

    Raises:
      UserError: A file is damaged, or has other features.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    for path in files:
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                values = tf.train.Example.FromString(record).features.feature
                yield values["label"].int64_list.value[0], values["image"].bytes_list.value[0]
        except (tf.errors.DataLossError, DecodeError, IndexError) as error:
            is_other = isinstance(error, IndexError)
            reason = "they have other features" if is_other else "they are damaged"
            raise UserError(
                f"{path} holds no TFRecords of image and label ({reason}): get it again, or put "
                "the images into class folders"
            ) from error
