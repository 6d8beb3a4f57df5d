# SPDX-License-Identifier: Apache-2.0
"""Reads TFDS builds of images and labels from before TFDS recorded their features (version 4).

Such a folder has `label.labels.txt` with one class per line, `dataset_info.json` with the number of
examples, and `<name>-<split>.tfrecord-<i>-of-<n>`, whose records are tf.train.Example messages.
TFDS can read it only with the class that built it, which TFDS has since removed.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ieg_core.data.public.tfds import INFO, check_records, damaged
from ieg_core.errors import UserError
from ieg_core.host.runtime import held_stderr, silence
from ieg_core.store.seal import parse_json

LABELS: Final = "label.labels.txt"
_FIX: Final = "get it again, or put the images into class folders"
_NAME: Final = re.compile(r".+-(\w+)\.tfrecord-(\d{5})-of-(\d{5})")


def splits_of(folder: Path) -> dict[str, list[Path]]:
    """Returns the files of each split, in order.

    Args:
      folder: The build's folder.

    Returns:
      The files by split.

    Raises:
      UserError: When a split lacks some of its files.
    """
    splits: dict[str, list[Path]] = {}
    expected: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        if match := _NAME.fullmatch(path.name):
            splits.setdefault(match[1], []).append(path)
            expected[match[1]] = int(match[3])
    for split, files in splits.items():
        if len(files) != expected[split]:
            raise UserError(
                f"{folder} has {len(files)} of {expected[split]} files of {split}: "
                "expected all; get the missing files"
            )
    return splits


def num_examples(folder: Path, split: str) -> int:
    """Returns the number of examples of a split according to dataset_info.json.

    Args:
      folder: The build's folder.
      split: The split's name.

    Raises:
      UserError: When the file is missing or does not give the number.
    """
    try:
        splits = parse_json((folder / INFO).read_bytes())["splits"]
        (counts,) = (entry for entry in splits if entry["name"] == split)
        # The first versions recorded only the total, not the examples of each file.
        lengths = counts.get("shardLengths") or [counts["statistics"]["numExamples"]]
        return sum(int(length) for length in lengths)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        exists = (folder / INFO).is_file()
        reason = f"does not give the number of examples of {split}" if exists else "is missing"
        raise damaged(folder, f"its {INFO} {reason}", _FIX) from error


def examples(files: Sequence[Path], expected: int) -> Iterator[tuple[int, bytes]]:
    """Reads the label and the encoded image of every example.

    Args:
      files: The files of a split.
      expected: The total number of examples.

    Yields:
      (label, bytes of the image file).

    Raises:
      UserError: When a file is damaged or has other features, or the number of examples differs.
    """
    check_records(files[0].parent, files, _FIX)
    silence()
    with held_stderr():
        import tensorflow as tf

        tf.constant(0)  # the first operation initializes TensorFlow
    from google.protobuf.message import DecodeError

    count = 0
    for path in files:
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                values = tf.train.Example.FromString(record).features.feature
                yield values["label"].int64_list.value[0], values["image"].bytes_list.value[0]
                count += 1
        except (tf.errors.DataLossError, DecodeError, IndexError) as error:
            is_other = isinstance(error, IndexError)
            reason = "they have other features" if is_other else "they are damaged"
            raise UserError(
                f"{path} has no valid records of image and label ({reason}): {_FIX}"
            ) from error
    if count != expected:
        reason = f"its files hold {count} examples, but {INFO} lists {expected}"
        raise damaged(files[0].parent, reason, _FIX)
