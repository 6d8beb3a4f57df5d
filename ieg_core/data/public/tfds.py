# SPDX-License-Identifier: Apache-2.0
"""Reads the examples of a TFDS build in any storage format, and detects damaged builds.

TFDS does not document which exceptions an incomplete copy, a truncated file or metadata of another
build cause; here each becomes a one-line error, and a build is never read with fewer examples.
"""

import contextlib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ieg_core.errors import UserError, missing_extra
from ieg_core.host.runtime import held_stderr, silence

INFO: Final = "dataset_info.json"
INCOMPLETE: Final = "incomplete."
"""Prefix of the folders that TFDS has not finished writing."""

_CHUNK: Final = 200
_RANDOM_ACCESS: Final = "array_record"
_LONGEST_REASON: Final = 150
# TensorFlow adds the operation before and after its messages; TFDS prefixes a call to others'.
_NO_REASON: Final = r"^\{\{.*?\}\} | \[Op:.*$|^Failed to construct dataset .*?\}\": "


def import_tfds() -> Any:
    """Imports TensorFlow Datasets without start-up messages of TensorFlow.

    Raises:
      UserError: When it is not installed.
    """
    silence()
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise missing_extra("tensorflow-datasets", "tfds")
    import tensorflow_datasets

    return tensorflow_datasets


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
