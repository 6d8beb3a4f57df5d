# SPDX-License-Identifier: Apache-2.0
"""CSV and Parquet tables: what is read, and what is refused instead of guessed."""

import contextlib
import csv
import io
import unicodedata

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from ieg_core.data import tables
from ieg_core.data.tables import EXECUTED, read_columns, to_csv
from ieg_core.errors import UserError

CSV_CASES = {
    "plain": (b"path,label\nx,a\n", ["x"], ["a"]),
    "byte order mark": (b"\xef\xbb\xbfpath,label\nx,a\n", ["x"], ["a"]),
    "no newline at the end": (b"path,label\nx,a", ["x"], ["a"]),
    "empty lines": (b"\n\npath,label\n\nx,a\n\n", ["x"], ["a"]),
    "line ends": (b"path,label\nx,a\r\ny,b\rz,c\n", ["x", "y", "z"], ["a", "b", "c"]),
    "quotes": (b'path,label\n"x,1","say ""a"""\n', ["x,1"], ['say "a"']),
    "a newline in quotes": (b'path,label\n"x\ny",a\n', ["x\ny"], ["a"]),
    "a quote inside": (b'path,label\nx,a"b\n', ["x"], ['a"b']),
    "empty cells": (b"path,label\n,\nx,a\n", ["", "x"], ["", "a"]),
    "empty rows at the end": (b"path,label\nx,\n,\n\n,\n", ["x"], [""]),
    "semicolons": (b'path;label\nx,1;a\n"y;1";b\n;\n', ["x,1", "y;1"], ["a", "b"]),
    "tabs": (b"\xef\xbb\xbf\npath\tlabel\tsize\nx;1\ta\t0,5\n", ["x;1"], ["a"]),
    "commas before semicolons": (b"path,label,a;b\nx;1,a,2\n", ["x;1"], ["a"]),
    "spaces stay": (b"path,label\n x , a\n", [" x "], [" a"]),
    "words for null": (b"path,label\nNA,null\n", ["NA"], ["null"]),
    "leading zeros": (b"path,label\n007,1e3\n", ["007"], ["1e3"]),
    "other columns": (b"a,label,b,path\n1,a,2,x\n", ["x"], ["a"]),
    "empty cells at the end": (b"path,label\nx,a,,\n", ["x"], ["a"]),
    "a formula as text": (b"path,label\n'=x,''a\n", ["=x"], ["'a"]),
    "control characters": (b"path,label\n'\\a\\\\\\x09,'\\\\x09\n", ["a\\\t"], ["\t"]),
    "a backslash": (b"path,label\n'\\a,a\\x09\n", ["'\\a"], ["a\\x09"]),
    "fewer cells than columns": (b"path,label\nx\n", ["x"], [None]),
    "spaces in the header": (b" path, label \nx,a\n", ["x"], ["a"]),
    "a header alone": (b"path,label\n", [], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CSV_CASES)
def test_a_csv_file_is_read(tmp_path, name):
    content, paths, labels = CSV_CASES[name]
    path = tmp_path / "table.CSV"
    path.write_bytes(content)
    expected = {"path": paths, "label": labels}
    assert read_columns(path, ("path", "label")) == expected
    assert read_columns(tmp_path / "no.csv", ("path", "label"), content=content) == expected


def test_what_python_writes_is_read_back(tmp_path):
    cells = ['a"b', '"', "a,b", "a\nb", " a ", "é", "\u2028", "0", "", "\\", "'"]
    text = io.StringIO()
    csv.writer(text).writerows([["path", "label"], *zip(cells, reversed(cells), strict=True)])
    (tmp_path / "table.csv").write_bytes(text.getvalue().encode())
    found = read_columns(tmp_path / "table.csv", ("path", "label"))
    assert found == {"path": cells, "label": cells[::-1]}


# pyarrow.csv reads every one of these without an error, except the table in UTF-16.
REFUSED = {
    "more cells than columns": b"path,label\nx,c0, tench\n",
    "more cells than columns, semicolons": b"path;label\nx;c0; tench\n",
    "an open quote": b'path,label\nx,"open\ny,b\n',
    "text after a quote": b'path,label\nx,"a"b\n',
    "Latin-1": b"path,label,other\nx,a,\xe9\n",
    "Latin-1 in the header": b"path,label,\xe9\nx,a,b\n",
    "UTF-16": "path,label\nx,a\n".encode("utf-16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_csv_file_that_can_be_misread_is_refused(tmp_path, name):
    path = tmp_path / "table.csv"
    path.write_bytes(REFUSED[name])
    expected = rf"cannot read {path} \(.+\): expected a CSV file in UTF-8 with the columns path and"
    with pytest.raises(UserError, match=expected) as error:
        read_columns(path, ("path", "label"))
    assert "\n" not in str(error.value)


def write_parquet(path, columns):
    parquet.write_table(pyarrow.table(list(columns.values()), list(columns)), path)


def test_a_parquet_file_is_read_with_its_types_and_nulls(tmp_path):
    path = tmp_path / "table.parquet"
    write_parquet(path, {"o": [[1], [2]], "label": [1, None], "path": ["x", "y"]})
    assert read_columns(path, ("path", "label")) == {"path": ["x", "y"], "label": [1, None]}
    content = path.read_bytes()
    assert read_columns(path, ("path",), ("label", "data"), content=content) == {
        "path": ["x", "y"],
        "label": [1, None],
    }


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_missing_column_is_named(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    if suffix == ".csv":
        path.write_text("file,label\nx,a\n")
    else:
        write_parquet(path, {"file": ["x"], "label": ["a"]})
    with pytest.raises(UserError, match=r"^this has the columns file, label: expected path and"):
        read_columns(path, ("path", "label"), name="this")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_is_there_twice_is_refused_if_it_is_read(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    if suffix == ".csv":
        path.write_text("path,label,label,o,o\nx,a,b,1,2\n")
    else:
        table = pyarrow.table([["x"], ["a"], ["b"], [1], [2]], ["path", "label", "label", "o", "o"])
        parquet.write_table(table, path)
    assert read_columns(path, ("path",)) == {"path": ["x"]}
    with pytest.raises(UserError, match="has the column label 2 times: expected it once"):
        read_columns(path, ("path", "label"))


def test_a_missing_file_and_no_parquet_file_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"\(No such file or directory\): expected a CSV"):
        read_columns(tmp_path / "no.csv", ("path",))
    (tmp_path / "no.parquet").write_bytes(b"PAR1 it is not")
    with pytest.raises(UserError, match=r"expected a Parquet file with the columns path;") as error:
        read_columns(tmp_path / "no.parquet", ("path",))
    assert "\n" not in str(error.value)


# What file systems allow: no surrogates (which are not UTF-8), no NUL, which csv cannot read.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
risky = st.builds(str.__add__, st.sampled_from([*EXECUTED, "'", "''", "'\\", "'\\x09"]), texts)


@given(st.lists(texts | risky, min_size=1, max_size=9))
def test_no_cell_is_executed_and_each_is_read_back(tmp_path_factory, cells):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(to_csv({"label": cells, "=other": range(len(cells))}))
    assert read_columns(path, ("label", "=other"))["label"] == cells
    with path.open(newline="", encoding="utf-8") as file:
        written = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell[0] in EXECUTED for cell in written if cell)
    assert not any(unicodedata.category(letter) == "Cc" for cell in written for letter in cell)


def test_bytes_in_a_parquet_file_are_texts_and_nan_is_null(tmp_path):
    path = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table({"path": [b"x\xc3\xa9"], "label": [float("nan")]}), path)
    assert read_columns(path, ("path", "label")) == {"path": ["xé"], "label": [None]}
    parquet.write_table(pyarrow.table({"path": [b"\xff"], "label": ["a"]}), path)
    with pytest.raises(UserError, match="cannot read"):
        read_columns(path, ("path", "label"))


@pytest.mark.parametrize("is_dictionary", [False, True])
def test_a_parquet_file_is_not_unpacked_to_much_more_than_its_size(
    tmp_path, monkeypatch, is_dictionary
):
    path = tmp_path / "table.parquet"
    texts = pyarrow.array(["x" * 1000] * 20_000)
    texts = texts.dictionary_encode() if is_dictionary else texts
    parquet.write_table(pyarrow.table({"label": texts}), path)
    cells = read_columns(path, ("label",))["label"]
    assert set(cells) == {"x" * 1000}
    monkeypatch.setattr(tables, "_MOST_UNPACKED", 1 << 20)
    monkeypatch.setattr(tables, "_MOST_INFLATION", 1)
    if is_dictionary:  # 4 bytes a row, and each text once
        assert read_columns(path, ("label",))["label"] == cells
        assert len({id(cell) for cell in cells}) < 10
    else:
        with pytest.raises(UserError, match="it unpacks to more than 1,048,576 bytes"):
            read_columns(path, ("label",))


def test_no_damaged_parquet_file_ends_the_process(tmp_path):
    """Asking Arrow for the metadata of a damaged column does."""
    path = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table({"path": list("abcdefghij"), "label": [0] * 10}), path)
    content = path.read_bytes()
    for place in range(len(content) // 4, len(content) // 2):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with contextlib.suppress(UserError):
            read_columns(path, ("path", "label"))
