# SPDX-License-Identifier: Apache-2.0
"""Reads TFDS builds of images and labels from before TFDS wrote down their features (version 4).

Such a folder has `label.labels.txt`, a class a line, `dataset_info.json`, which counts the
examples, and `<name>-<split>.tfrecord-<i>-of-<n>`, whose records are messages tf.train.Example.
TFDS itself reads it only by the class that built it, which it no longer has.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ieg_core.data.public.tfds import INFO, damaged
from ieg_core.errors import UserError
from ieg_core.host.runtime import held_stderr, silence

LABELS: Final = "label.labels.txt"
_MEND: Final = "get it again, or put the images into class folders"
# Of a record: its length, 8 bytes, and the checksums of the length and of the content, 4 each.
_FRAME_BYTES: Final = 16
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


def num_examples(folder: Path, split: str) -> int:
    """Returns how many examples dataset_info.json says that a split has.

    Raises:
      UserError: It says nothing of the sort.
    """
    try:
        found = json.loads((folder / INFO).read_bytes())["splits"]
        (counts,) = (each for each in found if each["name"] == split)
        # The first versions counted the examples alone, not those of each file.
        lengths = counts.get("shardLengths") or [counts["statistics"]["numExamples"]]
        return sum(int(length) for length in lengths)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        is_there = (folder / INFO).is_file()
        reason = f"does not say how many examples {split} has" if is_there else "is not there"
        raise damaged(folder, f"its {INFO} {reason}", _MEND) from error


def examples(files: Sequence[Path], expected: int) -> Iterator[tuple[int, bytes]]:
    """Yields label and encoded image of every example.

    Args:
      files: A split's files.
      expected: How many examples they have together.

    Raises:
      UserError: A file is damaged, or has other features, or there are more or fewer examples.
    """
    silence()
    with held_stderr():
        import tensorflow as tf

        tf.constant(0)  # the first operation starts it
    from google.protobuf.message import DecodeError

    count = 0
    for path in files:
        read = 0
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                values = tf.train.Example.FromString(record).features.feature
                yield values["label"].int64_list.value[0], values["image"].bytes_list.value[0]
                read += len(record) + _FRAME_BYTES
                count += 1
        except (tf.errors.DataLossError, DecodeError, IndexError) as error:
            is_other = isinstance(error, IndexError)
            reason = "they have other features" if is_other else "they are damaged"
            raise UserError(
                f"{path} holds no TFRecords of image and label ({reason}): {_MEND}"
            ) from error
        # A file that is cut inside a record's length ends there for TensorFlow.
        if read != path.stat().st_size:
            raise damaged(path.parent, f"{path.name} is cut", _MEND)
    if count != expected:
        reason = f"its files hold {count} examples, {INFO} says {expected}"
        raise damaged(files[0].parent, reason, _MEND)
