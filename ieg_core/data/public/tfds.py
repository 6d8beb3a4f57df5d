# SPDX-License-Identifier: Apache-2.0
"""Reads the examples of a TFDS build in any storage format, and detects damaged builds.

TFDS does not document which exceptions an incomplete copy, a truncated file or metadata of another
build cause; here each becomes a one-line error, and a build is never read with fewer examples.
"""

import contextlib
import importlib.util
import logging
import re
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ieg_core.errors import UserError, missing_extra
from ieg_core.host.folders import rename_folder, temporary_folder
from ieg_core.host.runtime import held_stderr, silence

INFO: Final = "dataset_info.json"
INCOMPLETE: Final = "incomplete."
"""Prefix of the folders that TFDS has not finished writing."""

_CHUNK: Final = 200
_PROBE_SECONDS: Final = 10
# Overhead per record of TFRecord: its length, and checksums of length and content, 4 bytes each.
_LENGTH_BYTES: Final = 8
_FRAME_BYTES: Final = 16
_RANDOM_ACCESS: Final = "array_record"
_LONGEST_REASON: Final = 150
# TensorFlow adds the operation before and after its messages; TFDS prefixes a call to others'.
_NO_REASON: Final = r"^\{\{.*?\}\} | \[Op:.*$|^Failed to construct dataset .*?\}\": "


def import_tfds() -> Any:
    """Imports TensorFlow Datasets without start-up messages of TensorFlow and advice of its own.

    Raises:
      UserError: When it is not installed.
    """
    silence()
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise missing_extra("tensorflow-datasets", "tfds")
    import tensorflow_datasets

    logging.getLogger("absl").addFilter(_is_no_advice)
    return tensorflow_datasets


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Drops the warning that OpenCV, which we do not need, would decode images faster."""
    return not str(record.msg).startswith("OpenCV is not installed")


def find_prepared(name: str, roots: Iterable[Path], fix: str) -> Any:
    """Finds a prepared data set that TFDS knows by name.

    Args:
      name: Its name.
      roots: The TFDS directories to search, in order.
      fix: How to fix a damaged build, for the error message.

    Returns:
      The `tfds.core.DatasetBuilder` of the first match; None if there is none.

    Raises:
      UserError: When the data set is incomplete, or TFDS is not installed.
    """
    tfds = import_tfds()
    for root in roots:
        if not any((root / name).glob("*/*")):
            continue  # TFDS would warn about a missing data set or an empty version folder
        with reported_as_damage(root / name, fix):
            builder = tfds.builder(name, data_dir=root, try_gcs=False)
            place = Path(builder.data_path)
            if place.exists() and not (place / INFO).exists():
                raise damaged(place, f"it has no {INFO}", fix)
            if builder.is_prepared():
                return builder
    return None


def build(
    name: str,
    data_dir: Path,
    *,
    is_local: bool,
    not_official: UserError,
    unavailable: Callable[[str], UserError],
) -> Any:
    """Builds a data set that TFDS knows by name in data_dir/tfds, from its official files.

    Args:
      name: Its name.
      data_dir: The data directory, where TFDS looks for the files before it downloads them.
      is_local: Whether the files are there.
      not_official: The error for files whose size or SHA-256 differs.
      unavailable: From the reason to the error for files that cannot be downloaded.

    Returns:
      Its `tfds.core.DatasetBuilder`.

    Raises:
      UserError: When the files are neither there nor can be downloaded, or are not the official
        ones.
    """
    tfds = import_tfds()
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    root = data_dir / "tfds"
    try:
        if not is_local:
            _check_reachable(next(iter(tfds.builder_cls(name).url_infos)))
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        # The next process removes the remains of a killed one, which TFDS itself would not do.
        with temporary_folder(root / name) as temporary:
            # The only format that TFDS reads with random access and without TensorFlow.
            builder = tfds.builder(
                name, data_dir=temporary, file_format=_RANDOM_ACCESS, try_gcs=False
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
        raise not_official from error
    except (OSError, DownloadError) as error:
        raise unavailable((str(error) or type(error).__name__).splitlines()[0]) from error
    return tfds.builder(name, data_dir=root, file_format=_RANDOM_ACCESS, try_gcs=False)


def _check_reachable(url: str) -> None:
    """Requests a file's headers first, since TFDS retries for minutes without a network."""
    request = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(request, timeout=_PROBE_SECONDS):
        return


@contextlib.contextmanager
def reported_as_damage(place: Path, fix: str) -> Iterator[None]:
    """Converts any exception of TFDS to a one-line error.

    Args:
      place: The build's folder.
      fix: How to fix a damaged build, for the error message.

    Raises:
      UserError: When anything other than a MemoryError is raised.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        lines = (line.strip() for line in str(error).splitlines())
        reason = next(filter(None, lines), type(error).__name__)
        reason = re.sub(_NO_REASON, "", reason)
        raise damaged(place, reason[:_LONGEST_REASON], fix) from error


def damaged(place: Path, reason: str, fix: str) -> UserError:
    """Returns the error for a damaged build in the folder `place`."""
    return UserError(f"the TFDS build {place} is damaged or incomplete ({reason}): {fix}")


def check_records(place: Path, files: Sequence[Path], fix: str) -> None:
    """Checks that the records of TFRecord files end where the files do.

    TensorFlow allocates the length that a record states before it reads it, which ends the process
    if a damaged length is large, and takes a file that ends inside a length for complete.

    Args:
      place: The build's folder.
      files: Its files of one split.
      fix: How to fix a damaged build, for the error message.

    Raises:
      UserError: When a record ends after its file.
    """
    for path in files:
        size, end = path.stat().st_size, 0
        with path.open("rb", buffering=0) as file:
            while end < size:
                file.seek(end)
                end += int.from_bytes(file.read(_LENGTH_BYTES), "little") + _FRAME_BYTES
        if end != size:
            raise damaged(place, f"{path.name} is truncated", fix)


def examples(
    builder: Any, split: str, decoders: Mapping[str, Any] | None = None, *, fix: str
) -> Iterator[Mapping[str, Any]]:
    """Reads all examples of a split, in the order in which TFDS stores them.

    Args:
      builder: The build's `tfds.core.DatasetBuilder`.
      split: The split's name.
      decoders: TFDS decoders by feature; None decodes everything.
      fix: How to fix a damaged build, for the error message.

    Yields:
      The features of an example as NumPy values, by name. A build in a sequential format (TFRecord)
      is read with TensorFlow.

    Raises:
      UserError: When a file is missing or damaged, or the number of examples differs from the one
        in dataset_info.json.
    """
    place = Path(builder.data_path)
    with reported_as_damage(place, fix):
        if builder.info.file_format.value != _RANDOM_ACCESS:
            files = [Path(path) for path in builder.info.splits[split].filepaths]
            check_records(place, files, fix)
            with held_stderr():  # imports TensorFlow
                dataset = builder.as_dataset(split, decoders=decoders)
            # TFDS itself checks the number of examples.
            yield from import_tfds().as_numpy(dataset)
            return
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        info = builder.info.splits[split]
        stored = len(ArrayRecordDataSource([str(path) for path in info.filepaths]))
        if stored != info.num_examples:
            reason = f"the files of {split} hold {stored} examples, but {INFO} lists "
            raise damaged(place, f"{reason}{info.num_examples}", fix)
        source = builder.as_data_source(split, decoders=decoders)
        for start in range(0, len(source), _CHUNK):
            yield from source.__getitems__(range(start, min(start + _CHUNK, len(source))))
