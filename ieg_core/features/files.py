# SPDX-License-Identifier: Apache-2.0
"""Precomputed features: `.npy`, `.npz` and Parquet files, one row per example."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ieg_core.errors import UserError
from ieg_core.features.reduction import check_features


def read_features(paths: Sequence[Path]) -> list[np.ndarray]:
    """Reads features of the same examples from one or several files.

    `.npy` files are memory-mapped. An `.npz` file must hold exactly one array. A Parquet file has
    numeric columns, or one column of lists of equal length. Pickled data are never loaded.

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
    check_features(features)
    return features


def _read_npz(path: Path) -> np.ndarray:
    # If np.load fails on a file that it opened itself, it leaves the file open.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        if len(file.files) != 1:
            raise ValueError(f"it holds the arrays {', '.join(file.files) or 'none'}, expected one")
        return file[file.files[0]]


def _read_parquet(path: Path) -> np.ndarray:
    table = pq.read_table(path)
    if table.num_columns == 1 and pa.types.is_nested(table.schema.types[0]):
        rows = table.column(0).combine_chunks()
        lengths = set(pa.compute.list_value_length(rows).to_pylist())
        if len(lengths) != 1 or None in lengths:
            raise ValueError("its lists differ in length")
        values = rows.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values).reshape(len(rows), -1)
    return np.column_stack([column.to_numpy() for column in table.columns])


_READERS = {
    ".npy": lambda path: np.load(path, mmap_mode="r", allow_pickle=False),
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}
