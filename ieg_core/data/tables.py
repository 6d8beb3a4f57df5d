# SPDX-License-Identifier: Apache-2.0
r"""Tables that users bring or get: CSV files in UTF-8 with a header, and Parquet files.

Cells are separated by commas or, where the header has none, by semicolons or tabs, as spreadsheets
write them in languages with decimal commas. Empty rows at the end are ignored.

Spreadsheets treat a cell that begins with = + - @, a tab or a line break as a formula. In CSV such
a cell, and one that begins with an apostrophe, is written with an apostrophe in front, which marks
it as text; in one with control characters these become \x09 behind an apostrophe and a backslash.
Reading reverses both. Parquet files have the texts as they are.
"""

import csv
import io
import itertools
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import numpy as np

from ieg_core.errors import UserError

SUFFIXES: Final = (".csv", ".parquet")
EXECUTED: Final = "=+-@＝＋－＠\t\r\n"
"""First characters by which spreadsheets recognize a formula, full-width ones included."""

_SEPARATORS: Final = (",", ";", "\t")
_TEXT: Final = "'"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ESCAPED: Final = re.compile(r"\\(\\|x[0-9a-f]{2})")
_IS_ESCAPED: Final = re.compile(rf"'\\(?:[^\\]|{_ESCAPED.pattern})*", re.DOTALL)
_MAX_SHOWN: Final = 100
_BATCH, _BATCH_OF_LISTS = 8192, 256
_MOST_UNPACKED: Final = 256 << 20
_MOST_INFLATION: Final = 100
_VALUE_BYTES: Final = 8


def read_columns(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    name: str = "",
    content: bytes | None = None,
) -> dict[str, list[Any]]:
    """Reads some columns of a table and ignores the others.

    Args:
      path: A file whose name ends in one of `SUFFIXES`, in upper or lower case.
      required: Columns that the table must have.
      optional: Columns that are read if the table has them.
      name: What error messages call the file; by default its path.
      content: The file's bytes, if they have been read already.

    Returns:
      The cells of each column, in the order of the rows, header and empty lines excluded. A cell of
      a CSV file is its text, not stripped, and None where the row is too short; a cell of a Parquet
      file is its Python value, a text for bytes, and None for null and NaN.

    Raises:
      UserError: When the file cannot be read, lacks a required column, has a column twice, or a row
        with more cells than the header.
    """
    name = name or str(path)
    read = {".csv": _read_csv, ".parquet": _read_parquet}[path.suffix.lower()]
    with (
        _readable(path, name, required),
        path.open("rb") if content is None else nullcontext(io.BytesIO(content)) as file,
    ):
        return read(file, name, required, optional)


def read_header(path: Path, required: Sequence[str] = ()) -> list[str]:
    """Reads the names of a table's columns.

    Args:
      path: A file whose name ends in one of `SUFFIXES`, in upper or lower case.
      required: Columns that messages say to be expected.

    Returns:
      The names in order.

    Raises:
      UserError: When the file cannot be read.
    """
    with _readable(path, str(path), required):
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet

            return list(parquet.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as text:
            return _header(_rows(text))


def to_csv(columns: Mapping[str, Any]) -> bytes:
    """Encodes columns of equal length as a CSV file in UTF-8: None as nothing, floats to 9 digits.

    No spreadsheet takes a text in it for a formula; `read_columns` returns the texts unchanged.

    Args:
      columns: Arrays or lists of equal length, by name.
    """
    text = io.StringIO()
    lists = [
        cells.tolist() if isinstance(cells, np.ndarray) else cells for cells in columns.values()
    ]
    rows = zip(*([_cell(cell) for cell in cells] for cells in lists), strict=True)
    csv.writer(text, lineterminator="\n").writerows([map(_cell, columns), *rows])
    return text.getvalue().encode()


def to_frame(columns: Mapping[str, Any], index: Sequence[Any] | None) -> Any:
    """Returns a pandas DataFrame; without pandas a dictionary of columns, one of them "index".

    Args:
      columns: Arrays or lists of equal length, by name.
      index: The index of each row; None for 0, 1, ….
    """
    try:
        import pandas as pd
    except ImportError:
        rows = range(len(next(iter(columns.values()))))
        return {"index": list(rows if index is None else index), **columns}
    return pd.DataFrame(dict(columns), index=index)


def to_parquet(columns: Mapping[str, Any]) -> bytes:
    """Encodes columns as a Parquet file.

    Args:
      columns: Arrays or lists of equal length, by name.

    Returns:
      The bytes of the file.
    """
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(dict(columns)), sink)
    return sink.getvalue().to_pybytes()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str):
        return safe_cell(value)
    return f"{value:.9f}" if isinstance(value, float) else value


def safe_cell(text: str) -> str:
    """Returns a text as a cell that no spreadsheet executes; see the module."""
    if _CONTROL.search(text):
        escaped = text.replace("\\", "\\\\")
        return f"{_TEXT}\\" + _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped)
    return mark_text(text)


def mark_text(text: str) -> str:
    """Returns a text with an apostrophe in front where its first character makes it a formula."""
    return _TEXT + text if text and text[0] in EXECUTED + _TEXT else text


def plain_cell(text: str) -> str:
    """Reverses `safe_cell`."""
    if text[2:].find("\\x") >= 0 and _IS_ESCAPED.fullmatch(text):
        return _ESCAPED.sub(
            lambda found: chr(int(found[1][1:], 16)) if len(found[1]) > 1 else "\\", text[2:]
        )
    is_marked = len(text) > 1 and text[0] == _TEXT and text[1] in EXECUTED + _TEXT
    return text[1:] if is_marked else text


def class_name(text: str) -> str:
    """Returns the one spelling of a class name: file systems and editors differ in Unicode's."""
    return unicodedata.normalize("NFC", text)


def is_no_label(cell: Any) -> bool:
    """Returns whether a cell holds no label: null, nothing, or what pandas writes instead."""
    return cell is None or str(cell).strip().lower() in ("", "nan", "<na>")


@contextmanager
def _readable(path: Path, name: str, required: Sequence[str]) -> Iterator[None]:
    """Converts the errors of reading a table to one-line errors."""
    kind = {".csv": "CSV file in UTF-8", ".parquet": "Parquet file"}[path.suffix.lower()]
    try:
        yield
    except UserError:
        raise
    # Arrow does not document which exceptions a value without a Python type can cause.
    except Exception as error:
        text = getattr(error, "strerror", None) or str(error)
        reason = (text.splitlines() or [type(error).__name__])[0][:_MAX_SHOWN]
        columns = f" with the columns {_listed(required)}" if required else ""
        is_there = not isinstance(error, FileNotFoundError)
        fix = "save it again in that format" if is_there else "check the path"
        raise UserError(
            f"cannot read {name} ({reason}): expected a {kind}{columns}; {fix}"
        ) from error


# Not pyarrow.csv: it takes an open quote's text to the end of the file for one cell, `"a"b` for ab,
# and bytes that are not UTF-8 in a header or an ignored column, all without an error.
def _read_csv(
    file: BinaryIO, name: str, required: Sequence[str], optional: Sequence[str]
) -> dict[str, list[Any]]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        rows = _rows(text)
        header = _header(rows)
        chosen = _choose(name, header, required, optional)
        places = {column: header.index(column) for column in chosen}
        columns: dict[str, list[Any]] = {column: [] for column in places}
        for number, row in enumerate(rows, 1):
            if any(row[len(header) :]):
                raise ValueError(
                    f"row {number} has {len(row)} cells, the header {len(header)}: put cells with "
                    "separators in quotes"
                )
            for column, place in places.items():
                columns[column].append(plain_cell(row[place]) if place < len(row) else None)
    return columns


def _rows(text: TextIO) -> Iterator[list[str]]:
    """Yields the rows that are not empty lines, header first, without empty ones at the end."""
    lines = iter(text)
    header = next((line for line in lines if line.strip("\r\n")), "")
    separator = next((each for each in _SEPARATORS if each in header), _SEPARATORS[0])
    empty: list[list[str]] = []
    for row in csv.reader(itertools.chain([header], lines), strict=True, delimiter=separator):
        if any(row):
            yield from empty
            yield row
            empty = []
        elif row:
            empty.append(row)


def _header(rows: Iterator[list[str]]) -> list[str]:
    return [plain_cell(column).strip() for column in next(rows, [])]


def read_parquet(file: BinaryIO, columns: Sequence[str] | None = None) -> Any:
    """Reads a Parquet file within bounds: a megabyte of it can hold billions of equal values.

    Lists are counted after every 256 of their rows, so one row of a very long list is not bounded.

    Args:
      file: The open file.
      columns: The columns to read; None for all.

    Returns:
      A pyarrow.Table.

    Raises:
      ValueError: When it unpacks to much more than its size.
    """
    import pyarrow
    from pyarrow import parquet

    most = max(_MOST_UNPACKED, _MOST_INFLATION * file.seek(0, io.SEEK_END))
    table = parquet.ParquetFile(file)
    # The metadata of a single column would say how many values are in lists, but where they are
    # damaged, asking for them ends the process.
    num_columns = table.metadata.num_columns if columns is None else len(columns)
    batches, unpacked = [], _VALUE_BYTES * table.metadata.num_rows * num_columns
    has_lists = any(pyarrow.types.is_nested(kind) for kind in table.schema_arrow.types)
    size = _BATCH_OF_LISTS if has_lists else _BATCH
    for batch in table.iter_batches(size, columns=columns) if unpacked <= most else ():
        batches.append(batch)
        # What a dictionary lists once is in every batch.
        unpacked += sum(getattr(each, "indices", each).nbytes for each in batch.columns)
        if unpacked > most:
            break
    if unpacked > most:
        raise ValueError(f"it unpacks to more than {most:,} bytes")
    schema = batches[0].schema if batches else table.schema_arrow
    return pyarrow.Table.from_batches(batches, schema)


def _read_parquet(
    file: BinaryIO, name: str, required: Sequence[str], optional: Sequence[str]
) -> dict[str, list[Any]]:
    from pyarrow import parquet

    chosen = _choose(name, parquet.read_schema(file).names, required, optional)
    table = read_parquet(file, chosen)
    return {column: _cells(table.column(column)) for column in chosen}


def _cells(column: Any) -> list[Any]:
    """Returns a column's values; those of a dictionary, such as pandas's categories, share one."""
    cells: list[Any] = []
    for chunk in column.chunks:
        values = getattr(chunk, "dictionary", chunk).to_pylist()
        known = [_value(value) for value in values]
        if hasattr(chunk, "indices"):
            known = [None if n is None else known[n] for n in chunk.indices.to_pylist()]
        cells += known
    return cells


def _value(cell: Any) -> Any:
    if isinstance(cell, bytes):
        return cell.decode()  # pandas and C++ libraries write texts as binary columns, too
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _choose(
    name: str, header: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> list[str]:
    """Returns the columns to read, in the order of `required` and `optional`."""
    if missing := [column for column in required if column not in header]:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"{name} has the columns {', '.join(header)[:_MAX_SHOWN] or '(none)'}: expected "
            f"{_listed(required)}; {_listed(missing)} {verb} missing"
        )
    chosen = [column for column in (*required, *optional) if column in header]
    if double := next((column for column in chosen if header.count(column) > 1), None):
        raise UserError(
            f"{name} has the column {double} {header.count(double)} times: expected it once; "
            "rename or remove the others"
        )
    return chosen


def _listed(names: Sequence[str]) -> str:
    """Lists names as a sentence does: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
