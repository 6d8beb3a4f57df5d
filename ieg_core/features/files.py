# SPDX-License-Identifier: Apache-2.0
"""Precomputed features: `.npy`, `.npz` and Parquet files, one row per example."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ieg_core.data.tables import read_parquet
from ieg_core.errors import UserError
from ieg_core.features.reduction import check_features
from ieg_core.host.archives import require_sane_size


def read_features(paths: Sequence[Path]) -> list[np.ndarray]:
    """Reads features of the same examples from one or several files.

    `.npy` files are memory-mapped. An `.npz` file must hold exactly one array. A Parquet file has
    numeric columns, or one column of lists of equal length. Both may hold the images' names too,
    as `paths` or `names` (`in_order_of`). Pickled data are never loaded.

    Args:
      paths: The files, all for the same examples in the same order.

    Returns:
      Float arrays [n, D₁], [n, D₂], …

    Raises:
      UserError: When a file is missing, damaged or not numeric, contains values that are not
        finite, or the files differ in their number of rows.
    """
    features = []
    for path in paths:
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise UserError(
                f"{path} is not a features file: expected one ending in {', '.join(_READERS)}"
            )
        if not path.is_file():
            raise UserError(f"there is no file {path}: expected features, one row per example")
        try:
            features.append(reader(path))
        # NumPy does not document which exceptions a damaged file can cause.
        except Exception as error:
            raise UserError(
                f"cannot read features from {path} ({error}): expected numbers, one row per example"
            ) from error
        if features[-1].dtype.kind not in "fiu":
            raise UserError(
                f"the features in {path} are of type {features[-1].dtype}: expected numbers"
            )
    check_features(features, [str(path) for path in paths])
    return features


def in_order_of(
    names: Sequence[str], features: Sequence[np.ndarray], paths: Sequence[Path]
) -> list[np.ndarray]:
    """Puts features into the order of the images, where their files say which row is which image.

    Args:
      names: The images' names.
      features: What `read_features` read from the files.
      paths: The files.

    Returns:
      Float arrays with a row for each image; those of a file without names are as they were.

    Raises:
      UserError: When a file's names cannot be read, repeat, or lack an image.
    """
    ordered = []
    for each, path in zip(features, paths, strict=True):
        try:
            own = _NAME_READERS[path.suffix.lower()](path)
        # As above; for example of a column of Python objects, as pandas has them.
        except Exception as error:
            raise UserError(
                f"cannot read the names in {path} ({error}): expected texts, such as "
                "np.array(paths, str)"
            ) from error
        if own is None:
            ordered.append(each)
            continue
        rows = {name: row for row, name in enumerate(own)}
        if len(rows) < len(own) or len(own) != len(each):
            raise UserError(
                f"{path} has {len(own)} names, {len(rows)} of them different, for {len(each)} rows "
                "of features: expected one name per row"
            )
        missing = [name for name in names if name not in rows]
        if missing:
            raise UserError(
                f"{path} has no features of {len(missing)} of {len(names)} images, such as "
                f"{missing[0]} (it has {own[0]}): expected the images' names; compute features "
                "of these images, or leave the names out if rows are in the order of the images"
            )
        ordered.append(each[[rows[name] for name in names]])
    return ordered


def _read_npz(path: Path) -> np.ndarray:
    _check_magic(path, b"PK")
    require_sane_size(path, ".npy")
    # If np.load fails on a file that it opened itself, it leaves the file open.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        keys = [key for key in file.files if key not in _NAMES]
        if len(keys) != 1:
            raise ValueError(f"it holds the arrays {', '.join(keys) or 'none'}, expected one")
        return file[keys[0]]


def _npz_names(path: Path) -> list[str] | None:
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        keys = [key for key in file.files if key in _NAMES]
        return [str(name) for name in file[keys[0]].tolist()] if keys else None


def _parquet_names(path: Path) -> list[str] | None:
    keys = [key for key in pq.read_schema(path).names if key in _NAMES]
    if not keys:
        return None
    with path.open("rb") as file:
        return [str(name) for name in read_parquet(file, keys[:1]).column(0).to_pylist()]


def _read_parquet(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        table = read_parquet(file)
    table = table.drop_columns([key for key in table.column_names if key in _NAMES])
    if table.num_columns == 1 and pa.types.is_nested(table.schema.types[0]):
        rows = table.column(0).combine_chunks()
        lengths = set(pc.list_value_length(rows).to_pylist())
        if len(lengths) != 1 or None in lengths:
            raise ValueError("its lists differ in length")
        values = rows.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values).reshape(len(rows), -1)
    return np.column_stack([column.to_numpy() for column in table.columns])


def _read_npy(path: Path) -> np.ndarray:
    _check_magic(path, b"\x93NUMPY")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _check_magic(path: Path, expected: bytes) -> None:
    """Refuses what NumPy would take for a pickle, and advise to load unsafely."""
    with path.open("rb") as file:
        if file.read(len(expected)) != expected:
            raise ValueError(f"it is not an {path.suffix} file")


_NAMES = ("paths", "names", "path", "name")

_NAME_READERS = {
    ".npy": lambda path: None,
    ".npz": _npz_names,
    ".parquet": _parquet_names,
}

_READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}
