# SPDX-License-Identifier: Apache-2.0
"""Reads CIFAR from TensorFlow Datasets (TFDS) and restores the official order.

TFDS shuffles the examples; the feature `id` ("train_16399") is the index in the official files.
Building a data set imports TensorFlow, and so does reading one stored as TFRecord.
"""

import sys
import urllib.request
from pathlib import Path
from typing import Any, Final

import numpy as np

from ieg_core.data.public.cifar import PIXEL_BYTES, CifarLayout, Records
from ieg_core.data.public.tfds import damaged, examples, find_prepared, import_tfds
from ieg_core.errors import UserError
from ieg_core.host.folders import rename_folder, temporary_folder

HOMEPAGE: Final = "https://www.cs.toronto.edu/~kriz/cifar.html"

_PROBE_SECONDS = 10
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
    tfds = import_tfds()
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    root = data_dir / "tfds"
    archive = data_dir / layout.archive
    if not archive.exists():
        (url,) = tfds.builder_cls(layout.base).url_infos
        _check_reachable(url, data_dir, layout)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        # The next process removes the remains of a killed one, which TFDS itself would not do.
        with temporary_folder(root / layout.base) as temporary:
            # The only format that TFDS reads with random access and without TensorFlow.
            builder = tfds.builder(
                layout.base, data_dir=temporary, file_format="array_record", try_gcs=False
            )
            built = Path(builder.data_path)
            config = tfds.download.DownloadConfig(
                extract_dir=temporary / "extracted", manual_dir=data_dir, try_download_gcs=False
            )
            builder.download_and_prepare(download_dir=root / "downloads", download_config=config)
            folder = root / built.relative_to(temporary)
            folder.parent.mkdir(exist_ok=True)
            rename_folder(built, folder)
    except NonMatchingChecksumError as error:
        raise UserError(
            f"{archive if archive.exists() else 'the downloaded ' + layout.archive} is not the "
            f"official archive (size or SHA-256 differs): get it again from {HOMEPAGE}"
        ) from error
    except (OSError, DownloadError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise _unavailable(data_dir, layout, reason) from error
    return tfds.builder(layout.base, data_dir=root, file_format="array_record", try_gcs=False)


def _check_reachable(url: str, data_dir: Path, layout: CifarLayout) -> None:
    """Requests the archive's headers first, since TFDS retries for minutes without a network."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=_PROBE_SECONDS):
            return
    except OSError as error:
        raise _unavailable(data_dir, layout, str(error)) from error


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
