# SPDX-License-Identifier: Apache-2.0
"""Reads the examples of a TFDS build, however it is stored, and tells a damaged one.

What a copy that stopped half way, a cut file or another build's metadata make TFDS raise, neither
it nor the libraries below it say; here each is one line, and no build is read as a shorter one.
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
"""What TFDS lets the names of folders begin with that it has not filled yet."""

_CHUNK: Final = 200
_RANDOM_ACCESS: Final = "array_record"
_LONGEST_REASON: Final = 150
# TensorFlow puts the operation before and behind its messages, TFDS a call before others'.
_NO_REASON: Final = r"^\{\{.*?\}\} | \[Op:.*$|^Failed to construct dataset .*?\}\": "


def import_tfds() -> Any:
    """Imports TensorFlow Datasets; what it imports in its turn says nothing as it starts."""
    silence()
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise missing_extra("tensorflow-datasets", "tfds")
    import tensorflow_datasets

    return tensorflow_datasets


def find_prepared(name: str, roots: Iterable[Path], mend: str) -> Any:
    """Finds a data set that TFDS knows by name.

    Args:
      name: Its name.
      roots: The TFDS directories that may hold it.
      mend: What is to be done where it is damaged.

    Returns:
      The first one's `tfds.core.DatasetBuilder`; None where there is none.

    Raises:
      UserError: It is there, but not whole.
    """
    tfds = import_tfds()
    for root in roots:
        if not any((root / name).glob("*/*")):
            continue  # TFDS would warn of it, or of the empty folder of a version
        with told_as_damage(root / name, mend):
            builder = tfds.builder(name, data_dir=root, try_gcs=False)
            place = Path(builder.data_path)
            if place.exists() and not (place / INFO).exists():
                raise damaged(place, f"it has no {INFO}", mend)
            if builder.is_prepared():
                return builder
    return None


@contextlib.contextmanager
def told_as_damage(place: Path, mend: str) -> Iterator[None]:
    """Turns whatever TFDS raises into one line.

    Args:
      place: The build's folder.
      mend: What is to be done about it.

    Raises:
      UserError: Anything but a lack of memory was raised.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        lines = (line.strip() for line in str(error).splitlines())
        reason = next(filter(None, lines), type(error).__name__)
        reason = re.sub(_NO_REASON, "", reason)
        raise damaged(place, reason[:_LONGEST_REASON], mend) from error


def damaged(place: Path, reason: str, mend: str) -> UserError:
    """Builds the error for a build that cannot be used as it is."""
    return UserError(f"the TFDS build {place} is damaged or not whole ({reason}): {mend}")


def examples(
    builder: Any, split: str, decoders: Mapping[str, Any] | None = None, *, mend: str
) -> Iterator[Mapping[str, Any]]:
    """Reads every example of a split, in the order in which TFDS stores them.

    Args:
      builder: The build's `tfds.core.DatasetBuilder`.
      split: The split's name.
      decoders: By feature, as TFDS takes them; None decodes everything.
      mend: What is to be done where the build is damaged.

    Yields:
      The example's features as NumPy values, by name. Of a build in a sequential format, TFRecord,
      by way of TensorFlow.

    Raises:
      UserError: A file is missing or damaged, or has more or fewer examples than the build says.
    """
    place = Path(builder.data_path)
    with told_as_damage(place, mend):
        if builder.info.file_format.value != _RANDOM_ACCESS:
            with held_stderr():  # it imports TensorFlow
                dataset = builder.as_dataset(split, decoders=decoders)
            # The number of examples TFDS checks itself.
            yield from import_tfds().as_numpy(dataset)
            return
        _refuse_other_count(builder, split, mend)
        source = builder.as_data_source(split, decoders=decoders)
        for start in range(0, len(source), _CHUNK):
            yield from source.__getitems__(range(start, min(start + _CHUNK, len(source))))


def _refuse_other_count(builder: Any, split: str, mend: str) -> None:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    info = builder.info.splits[split]
    stored = len(ArrayRecordDataSource([str(path) for path in info.filepaths]))
    if stored != info.num_examples:
        raise damaged(
            Path(builder.data_path),
            f"the files of {split} hold {stored} examples, {INFO} says {info.num_examples}",
            mend,
        )
