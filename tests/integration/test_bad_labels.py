# SPDX-License-Identifier: Apache-2.0
"""Bad files of labels, given as people give them: nothing in them is run."""

import csv
import os
import pickle
import stat

import numpy as np
import pyarrow
import pytest

from ieg_core.data import open
from ieg_core.data.labels.label_file import to_parquet, write_labels
from ieg_core.data.open import open_source
from tests.doors import DOORS, files, prepare, refused
from tests.ieg_core.data.conftest import small_files, small_layout
from tests.ieg_core.data.trees import not_utf8_column


def labels_csv(text):
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def pickled(path):
    np.save(path, np.array([os.getcwd], dtype=object), allow_pickle=True)


LABELS = {
    "missing": ("labels.csv", lambda path: None, "No such file"),
    "no column": ("labels.csv", labels_csv("index,class\n0,bee\n"), "label is missing"),
    "other data": (
        "labels.csv",
        labels_csv("index,label,data\n0,bee,folder:0123456789ab\n"),
        "is for the data folder:0123456789ab, expected folder:",
    ),
    "not UTF-8": (
        "labels.csv",
        labels_csv(b"index,label\n0,b\xe9e\n"),
        "expected a CSV file in UTF-8",
    ),
    "too many": ("labels.csv", labels_csv("index,label\n36,bee\n"), "index '36' in row 1"),
    "Parquet not UTF-8": (
        "labels.parquet",
        lambda path: path.write_bytes(to_parquet({"index": [0, 1], "label": not_utf8_column()})),
        "expected a Parquet file with the columns index and label",
    ),
    "Parquet no value of Python's": (
        "labels.parquet",
        lambda path: path.write_bytes(
            to_parquet({"index": [0], "label": pyarrow.array([10**15], pyarrow.timestamp("s"))})
        ),
        "expected a Parquet file with the columns index and label",
    ),
    "objects": ("labels.npy", pickled, "has the extension '.npy': expected .csv or .parquet"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", LABELS)
def test_a_bad_label_file_is_one_line(tree, tmp_path, capsys, name, door):
    called, write, message = LABELS[name]
    write(tmp_path / called)
    line = refused(capsys, door("folder_labels", f"--labels={called}"))
    assert message in line
    assert called in line
    assert files(tmp_path / "runs") == []


@pytest.mark.parametrize("door", DOORS)
def test_cleaned_labels_of_other_data_are_refused(tree, tmp_path, capsys, door):
    """As an audit writes them; then an image goes, and every index behind it means another."""
    source = open_source("folder", tree)
    write_labels(tmp_path / "cleaned.csv", np.arange(36), source.train_labels, source)
    (tree / "train" / "apple" / "0000.png").unlink()
    line = refused(capsys, door("folder_labels", "--labels=cleaned.csv"))
    assert "use the file that was written for these data" in line


class RunsWhenRead:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A few images in CIFAR's layout in data/."""
    monkeypatch.chdir(tmp_path)
    layout = small_layout("cifar10")
    monkeypatch.setitem(open.LAYOUTS, "cifar10", layout)
    folder = tmp_path / "data" / layout.folder
    folder.mkdir(parents=True)
    for name, content in small_files(layout).items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("door", DOORS)
def test_missing_human_labels_are_one_line(cifar, tmp_path, capsys, caplog, door):
    assert "put CIFAR-10_human.pt from" in refused(capsys, door("cifar10_human_worst"))
    assert caplog.messages == []  # what a library logs is a line too
    assert files(tmp_path / "runs") == []


@pytest.mark.parametrize("door", DOORS)
def test_nothing_in_peoples_labels_is_run(cifar, tmp_path, capsys, door):
    """CIFAR-N's file, with an order to run something in place of one of its arrays."""
    clean = open_source("cifar10", tmp_path / "data").train_labels.astype(np.int64)
    people = tmp_path / "data" / "cifar-n" / "CIFAR-10_human.pt"
    people.parent.mkdir()
    people.write_bytes(pickle.dumps({"clean_label": clean, "worse_label": RunsWhenRead()}))
    line = refused(capsys, door("cifar10_human_worst"))
    assert "it refers to posix.mkdir; no code in it was run" in line
    assert not (tmp_path / "was-run").exists()
    assert files(tmp_path / "runs") == []
    # The same bytes do run where they are read without care.
    pickle.loads(people.read_bytes())
    assert stat.S_ISDIR((tmp_path / "was-run").stat().st_mode)


def test_the_audits_own_table_is_no_label_file_by_mistake(tree, tmp_path, capsys):
    """audit.csv has an index and no label, but two columns of which either could be meant."""
    with (tmp_path / "audit.csv").open("w") as file:
        csv.writer(file).writerows([["index", "given", "suggested"], [0, 1, 2]])
    line = refused(capsys, prepare("folder_labels", "--labels=audit.csv"))
    assert "index, given, suggested: expected index and label; label is missing" in line
