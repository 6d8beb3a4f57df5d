# SPDX-License-Identifier: Apache-2.0
"""Label files: a CSV or Parquet file with the columns index and label.

Audits and annotation tools write them. Where the images are files, a column path, relative to the
data directory, may stand in the place of index. An optional third column, data, names the base data
set that the labels are for; the file is then refused for any other. Other columns are ignored.
"""

import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ieg_core.data.base import Labels, Source
from ieg_core.data.labels.given import NOT_LISTED, GivenLabels, data_tag
from ieg_core.data.tables import (
    SUFFIXES,
    class_name,
    is_no_label,
    read_columns,
    read_header,
    to_csv,
    to_parquet,
)
from ieg_core.errors import UserError, unknown_name
from ieg_core.host.files import write_bytes_atomic

COLUMNS: Final = ("index", "label")
DATA_COLUMN: Final = "data"
_MAX_CELL: Final = 40


def read_labels(path: Path, source: Source) -> GivenLabels:
    """Reads a label file for a base data set.

    A label is the name or the number of a class. If a name is itself a number, the name takes
    precedence. If all names are numbers, labels are compared by value: 7 means the class named
    007, since spreadsheets and pandas drop the zeros, and never the eighth class.
    Examples that the file does not list have no label and are not trained on. Rows about images
    that are held out to test on (`Source.held_out`) are ignored.

    Args:
      path: A .csv file (UTF-8, with a header) or a .parquet file.
      source: The base data set.

    Returns:
      The labels, and the file's name and digest.

    Raises:
      UserError: When the file cannot be read, lacks a column or a cell, is for other data, has an
        unknown index or label or a repeated index, or labels no example with one of the classes.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the label file {path} ({error.strerror}): expected a CSV or Parquet file "
            "with the columns index and label"
        ) from error
    check_extension(path)
    name = f"the label file {path}"
    wanted = COLUMNS
    if source.paths and "index" not in (header := read_header(path)) and "path" in header:
        wanted = ("path", "label")
    columns = read_columns(path, wanted, (DATA_COLUMN,), name=name, content=content)
    for column, cells in columns.items():
        if None in cells:
            raise UserError(
                f"{name} has no {column} in row {cells.index(None) + 1}: expected "
                f"{', '.join(columns)} in every row"
            )
    _check_data(path, columns.get(DATA_COLUMN), source)
    if "path" in columns:
        columns["index"] = _places(path, columns.pop("path"), source)
    labels = _to_labels(path, columns, source)
    missing = set(range(len(source.class_names))) - set(labels.tolist())
    if missing:
        name = source.class_names[min(missing)]
        raise UserError(
            f"the label file {path} gives no example the label {name!r} ({len(missing)} of "
            f"{len(source.class_names)} classes have none): expected at least one per class"
        )
    return GivenLabels(labels, path.name, hashlib.sha256(content).hexdigest())


def write_labels(path: Path, ids: np.ndarray, labels: np.ndarray, source: Source) -> None:
    """Writes a label file that `read_labels` accepts for these data only.

    Args:
      path: The file, with the extension .csv or .parquet.
      ids: Indices of the examples, int [n].
      labels: Their classes, int [n] in [0, C); written as names.
      source: The base data set.

    Raises:
      UserError: When the extension is another one, or the file cannot be written.
    """
    names = [source.class_names[label] for label in labels]
    columns = {"index": ids, "label": names, DATA_COLUMN: [data_tag(source)] * len(names)}
    write_bytes_atomic(path, encode_table(path, columns))


def encode_table(path: Path, columns: Mapping[str, Any]) -> bytes:
    """Encodes columns as the extension of a label file says.

    Args:
      path: The file, with the extension .csv or .parquet.
      columns: Arrays or lists of equal length, by name.

    Raises:
      UserError: When the extension is another one.
    """
    check_extension(path)
    return (to_csv if path.suffix.lower() == ".csv" else to_parquet)(columns)


def check_extension(path: Path) -> None:
    """Raises UserError unless a label file can have that name."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"the label file {path} has the extension {path.suffix!r}: expected .csv or .parquet"
        )


def _check_data(path: Path, tags: Sequence[Any] | None, source: Source) -> None:
    expected = data_tag(source)
    for tag in dict.fromkeys(tags or ()):
        if str(tag).strip() != expected:
            raise UserError(
                f"the label file {path} is for the data {str(tag)[:_MAX_CELL]}, expected "
                f"{expected} from {source.origin}: use the file that was written for these data"
            )


def _places(path: Path, cells: Sequence[Any], source: Source) -> list[int | None]:
    """Returns the indices of the training files that a label file names; None if held out."""
    places: dict[str, int | None] = {
        _plain_path(name): place for place, name in enumerate(source.paths)
    }
    places |= dict.fromkeys(map(_plain_path, source.held_out))
    indices = []
    for row, cell in enumerate(cells, 1):
        forms = map(_plain_path, (str(cell), str(cell).replace("\\", "/")))
        name = next((form for form in forms if form in places), None)
        if name is None:
            raise UserError(
                f"the label file {path} has the path {str(cell)[:_MAX_CELL]!r} in row {row}: "
                f"expected one of the {len(places)} training files, such as {source.paths[0]!r}"
            )
        indices.append(places[name])
    return indices


def _plain_path(path: str) -> str:
    """Returns the one spelling of a path, whose Unicode differs between file systems."""
    return unicodedata.normalize("NFC", os.path.normpath(path))


def _to_labels(path: Path, columns: Mapping[str, Sequence[Any]], source: Source) -> Labels:
    num_examples = len(source.train_labels)
    by_name = {class_name(name): number for number, name in enumerate(source.class_names)}
    values = [_whole(name) for name in source.class_names]
    numerals = {value: number for number, value in enumerate(values) if value is not None}
    are_numbers = len(numerals) == len(values)
    by_number = numerals if are_numbers else {number: number for number in by_name.values()}
    labels = np.full(num_examples, NOT_LISTED, np.int32)
    for row, (index, label) in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True), 1):
        if index is None:
            continue
        place = _whole(index)
        if place is None or not 0 <= place < num_examples:
            raise UserError(
                f"the label file {path} has the index {str(index)[:_MAX_CELL]!r} in row {row}: "
                f"expected one of the {num_examples} training examples, 0 to {num_examples - 1}"
            )
        if labels[place] != NOT_LISTED:
            raise UserError(
                f"the label file {path} repeats the index {place} in row {row}: expected one label "
                "per example"
            )
        # Unstripped first: the name of a folder, and so of a class, may end in a space.
        text = class_name(str(label))
        number = by_name.get(text, by_name.get(text.strip()))
        if number is None and is_no_label(label):
            raise UserError(
                f"{path} has the label {label!r} in row {row}, which means none: expected a "
                "label in every row; leave out rows without one"
            )
        if number is None and (value := _whole(label)) is not None:
            number = by_number.get(value)
        if number is None:
            unknown = unknown_name("label", str(label)[:_MAX_CELL], _some(source.class_names))
            numbers = "" if are_numbers else f", or a number from 0 to {len(by_name) - 1}"
            raise UserError(f"the label file {path}, row {row}: {unknown}{numbers}")
        labels[place] = number
    return labels


def _whole(value: Any) -> int | None:
    """Parses a whole number; returns None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _some(names: Sequence[str]) -> Sequence[str]:
    """Shortens a list of names to fit a readable line."""
    return names if len(names) <= 20 else (*names[:20], "…")
