# SPDX-License-Identifier: Apache-2.0
"""Reads CIFAR from TensorFlow Datasets (TFDS) and restores the official order.

TFDS shuffles the examples; the feature `id` ("train_16399") is the index in the official files.
Building a data set imports TensorFlow, and so does reading one stored as TFRecord.
"""

import functools
from pathlib import Path
from typing import Any, Final

import numpy as np

from ieg_core.data.public.cifar import PIXEL_BYTES, CifarLayout, Records
from ieg_core.data.public.tfds import build, damaged, examples, find_prepared
from ieg_core.errors import UserError

HOMEPAGE: Final = "https://www.cs.toronto.edu/~kriz/cifar.html"

_FIX: Final = "delete that folder and run again"


def read_tfds(data_dir: Path, layout: CifarLayout) -> tuple[Records, Records]:
    """Reads the data set from a TFDS directory, and builds it there first if missing.

    Searches data_dir/tfds, then data_dir. If neither has the data set, it is built in data_dir/tfds
    from the official archive: data_dir/<archive> if that exists, otherwise a download.

    Args:
      data_dir: The data directory.
      layout: The layout of the data set, including its name and number of records.

    Returns:
      Training and test records as in the official files, uint8 [n, label bytes + 3072].

    Raises:
      UserError: When the data set is missing and cannot be built, or is damaged.
    """
    roots = (data_dir / "tfds", data_dir)
    builder = find_prepared(layout.base, roots, _FIX) or _build(data_dir, layout)
    return _read_split(builder, "train", layout), _read_split(builder, "test", layout)


def _build(data_dir: Path, layout: CifarLayout) -> Any:
    archive = data_dir / layout.archive
    is_local = archive.exists()
    return build(
        layout.base,
        data_dir,
        is_local=is_local,
        not_official=UserError(
            f"{archive if is_local else 'the downloaded ' + layout.archive} is not the official "
            f"archive (size or SHA-256 differs): get it again from {HOMEPAGE}"
        ),
        unavailable=functools.partial(_unavailable, data_dir, layout),
    )


def _unavailable(data_dir: Path, layout: CifarLayout, reason: str) -> UserError:
    return UserError(
        f"{layout.base} is not in {data_dir} and cannot be downloaded ({reason}): put the "
        f"folder {layout.folder}/ or the archive {layout.archive} from {HOMEPAGE} into {data_dir}"
    )


def _read_split(builder: Any, split: str, layout: CifarLayout) -> Records:
    expected = layout.num_records(split)
    records = np.zeros((expected, layout.record_bytes), np.uint8)
    seen = np.zeros(expected, bool)
    # In the order of the official record: the coarse label, if any, before the class.
    label_keys = ("coarse_label", "label")[-layout.label_bytes :]
    for example in examples(builder, split, fix=_FIX):
        index = int(example["id"].decode().removeprefix(f"{split}_"))
        if not 0 <= index < expected or seen[index]:
            reason = f"its {split} set has an unexpected or repeated id {index}"
            raise damaged(Path(builder.data_path), reason, _FIX)
        seen[index] = True
        records[index, : layout.label_bytes] = [example[key] for key in label_keys]
        pixels = np.asarray(example["image"]).transpose(2, 0, 1)
        records[index, layout.label_bytes :] = pixels.reshape(PIXEL_BYTES)
    if not seen.all():
        reason = f"its {split} set has {seen.sum()} images, expected {expected}"
        raise damaged(Path(builder.data_path), reason, _FIX)
    return records
