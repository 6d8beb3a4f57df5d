# SPDX-License-Identifier: Apache-2.0
"""Bad input, given as people give it: on the command line of `ieg` and of `make sweep`."""

import csv
import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from ieg_core import cli, worker
from ieg_core.data import open_source, sources
from ieg_core.data.labels import to_parquet, write_labels
from pipelines import __main__ as pipelines
from tests.ieg_core.data.conftest import small_files, small_layout
from tests.ieg_core.data.trees import NAMES, bomb, picture, write_tree

ROOT = Path(__file__).parents[1]
PATH = "train/bee/0000.png"
SIZE = "images.size=8"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Images in data/, which is where all commands look by themselves; 42 files."""
    monkeypatch.chdir(tmp_path)
    return write_tree(tmp_path / "data", {"train": 12, "test": 2})


def prepare(dataset="folder", *more):
    size = ("--image-size", "8") if dataset.startswith("folder") else ()
    return cli.main(["prepare", dataset, "--probe-per-class", "1", *size, *more])


def train(dataset="folder", *more):
    sizes = ("--set", SIZE, "--set", "batch_size=10") if dataset.startswith("folder") else ()
    return cli.main(["train", "--dataset", dataset, "--method", "supervised", *sizes, *more])


def sweep(dataset="folder", *more):
    words = [f"--dataset={dataset}", "--methods=supervised", "--data-dir=data", "--out=runs"]
    if dataset.startswith("folder"):
        words.append(f"--set={SIZE} batch_size=10")
    return pipelines.main(["run", "noise_sweep", "--runner=local", "--devices=cpu", *words, *more])


DOORS = [prepare, train, sweep]


def refused(capsys, code):
    """Returns the one line that a refused command ends with."""
    told = capsys.readouterr()
    assert code == worker.EXIT_USER_ERROR
    assert told.out == ""
    assert told.err.startswith("ieg: error: ")
    assert told.err.count("\n") == 1
    assert told.err.strip().isprintable()
    return told.err


def files(folder):
    return [path for path in folder.rglob("*") if not path.is_dir()]


def empty_class(tree):
    (tree / "train" / "dog").mkdir()


def one_class(tree):
    for part in ("train", "test"):
        for name in NAMES[1:]:
            shutil.rmtree(tree / part / name)


def one_image(tree):
    one_class(tree)
    for path in sorted(tree.glob("train/apple/*"))[1:]:
        path.unlink()


def unknown_class(tree):
    (tree / "test" / "wasp").mkdir()
    picture(0, 0).save(tree / "test" / "wasp" / "1.png")


def unknown_class_of_two_lines(tree):
    (tree / "test" / "wa\n\x1b[2Jsp").mkdir()
    picture(0, 0).save(tree / "test" / "wa\n\x1b[2Jsp" / "1.png")


def empty_jpeg(tree):
    (tree / "train" / "bee" / "zero.jpg").write_bytes(b"")


def decompression_bomb(tree):
    (tree / "train" / "bee" / "bomb.png").write_bytes(bomb())


def pipe(tree):
    os.mkfifo(tree / "train" / "bee" / "pipe.png")


def dangling_link(tree):
    (tree / "train" / "bee" / "link.png").symlink_to("nowhere.png")


def link_to_itself(tree):
    (tree / "train" / "bee" / "link.png").symlink_to("link.png")


def link_outside(tree):
    (tree.parent / "secret.png").write_bytes(b"x")
    (tree / "train" / "bee" / "link.png").symlink_to("../../../secret.png")


def class_link_outside(tree):
    (tree.parent / "elsewhere").mkdir()
    (tree / "train" / "dog").symlink_to(tree.parent / "elsewhere")


def hidden_link_outside(tree):
    """Followed one by one the path stays inside; shortened, as it is read, it does not."""
    (tree.parent / "secret.png").write_bytes(b"x")
    (tree / "deep" / "down").mkdir(parents=True)
    (tree / "link").symlink_to("deep/down")
    (tree / "x.png").symlink_to("../secret.png")
    table("path,label\nlink/../x.png,bee\ntrain/car/0000.png,car\n")(tree)


def table_link_outside(tree):
    (tree.parent / "secret").write_text("a:secret\n")
    (tree / "train.csv").symlink_to(tree.parent / "secret")


def links_up(tree):
    """Two of them: whoever follows has two to the fortieth folders to go through."""
    for name in NAMES[:2]:
        (tree / "train" / name / "up").symlink_to("../../train")


def name_not_utf8(tree):
    os.rename(tree / PATH, os.fsencode(tree / "train/bee") + b"/caf\xe9.png")


def class_not_utf8(tree):
    os.rename(tree / "test" / "bee", os.fsencode(tree / "test") + b"/\xff")


def table(text):
    def write(tree):
        (tree / "train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


def linked_in_table(tree):
    link_to_itself(tree)
    paths = ("train/apple/0000.png", PATH, "train/car/0000.png", "train/bee/link.png")
    table("path,label\n" + "".join(f"{path},{path.split('/')[1]}\n" for path in paths))(tree)


def parquet(columns):
    def write(tree):
        pyarrow.parquet.write_table(pyarrow.table(columns), tree / "train.parquet")

    return write


def not_utf8_column():
    offsets = pyarrow.array([0, 8, 9], pyarrow.int32()).buffers()[1]
    return pyarrow.StringArray.from_buffers(2, offsets, pyarrow.py_buffer(b"caf\xe9.pngx"))


REFUSED = {
    "nothing there": (shutil.rmtree, "no data directory data: expected a folder with train/"),
    "empty class": (empty_class, "class 'dog' has no file in data/train/dog: put images there"),
    "one class": (one_class, "has 1 class (apple): expected at least two"),
    "one image": (one_image, "has 1 class (apple): expected at least two"),
    "class in test alone": (unknown_class, "test of data has classes that train has not: wasp"),
    "line break in a name": (unknown_class_of_two_lines, r"train has not: wa\n\x1b[2Jsp"),
    "0-byte JPEG": (empty_jpeg, "1 of 43 files in data cannot be decoded (train/bee/zero.jpg: it"),
    "bomb": (decompression_bomb, "30000×30000 pixels are more than 90 megapixels"),
    "pipe": (pipe, "1 of 43 files in data cannot be decoded (train/bee/pipe.png: it is no file"),
    "dangling link": (dangling_link, "(train/bee/link.png: no such file or directory)"),
    "link to itself": (link_to_itself, "(train/bee/link.png: too many levels of symbolic links)"),
    "link outside": (link_outside, "data/train/bee/link.png leads out of the data directory"),
    "class link outside": (class_link_outside, "train/dog leads out of the data directory"),
    "hidden link outside": (hidden_link_outside, "line 2 of data/train.csv leads out of the data"),
    "table link outside": (table_link_outside, "data/train.csv leads out of the data directory"),
    "links up": (links_up, "leads back to"),
    "name not UTF-8": (name_not_utf8, r"the name b'caf\xe9.png' in data/train/bee is no UTF-8"),
    "class not UTF-8": (class_not_utf8, r"the name b'\xff' in data/test is no UTF-8"),
    "no columns": (table("file,class\na,b\n"), "no column 'path' and no column 'label', but"),
    "no column": (parquet({"path": [PATH]}), "train.parquet has no column 'label', but 'path'"),
    "path outside": (table("path,label\n../x.png,bee\n"), "line 2 of data/train.csv leads out"),
    "path of no file": (table(b"path,label\na\0b.png,bee\n"), r"has no path but 'a\x00b.png'"),
    "link to itself in a table": (linked_in_table, "too many levels of symbolic links"),
    "table not UTF-8": (table(b"path,label\ncaf\xe9.png,bee\n"), "expected a CSV file in UTF-8"),
    "Parquet no value of Python's": (
        parquet({"path": [PATH], "label": pyarrow.array([10**15], pyarrow.timestamp("s"))}),
        "cannot read data/train.parquet (",
    ),
    "Parquet not UTF-8": (
        parquet({"path": not_utf8_column(), "label": ["bee", "bee"]}),
        "cannot read data/train.parquet ('utf-8' codec can't decode byte 0xe9",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_images_are_one_line_and_leave_nothing_behind(tree, tmp_path, capsys, name):
    spoil, message = REFUSED[name]
    spoil(tree)
    assert message in refused(capsys, prepare())
    assert files(tmp_path / "runs") == []


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["empty class", "0-byte JPEG", "path outside", "link outside"])
def test_every_command_refuses_them(tree, tmp_path, capsys, door, name):
    spoil, message = REFUSED[name]
    spoil(tree)
    assert message in refused(capsys, door())
    assert files(tmp_path / "runs") == []


def test_a_further_test_set_lies_in_the_data_directory_too(tree, tmp_path, capsys):
    write_tree(tmp_path / "other", {"photos": 1})
    code = train("folder", "--set", "images.eval_sets=../other/photos")
    assert "leads out of the data directory" in refused(capsys, code)


@pytest.mark.parametrize("part", ["train", "test", "probe"])
def test_the_run_s_own_parts_are_no_further_test_sets(tree, tmp_path, capsys, part):
    line = refused(capsys, train("folder", "--set", f"images.eval_sets={part}"))
    assert f"images.eval_sets names {part!r}, which every run looks at anyway" in line
    assert files(tmp_path / "runs") == []


def test_one_image_a_class_is_too_few_and_said_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "data", {"train": 1, "test": 1})
    assert "class 'apple' has 1 training examples" in refused(capsys, prepare())
    assert "has 3 training examples, too few for a batch of 10" in refused(capsys, train())


def test_a_few_broken_files_and_shared_ones_are_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tree = write_tree(tmp_path / "data", {"train": 70, "test": 3})
    empty_jpeg(tree)
    decompression_bomb(tree)
    shutil.copy(tree / "train" / "car" / "0002.png", tree / "test" / "car" / "copy.png")
    assert prepare() == 0
    told = capsys.readouterr().out.splitlines()
    # 70 + 3 of three classes, and three files more.
    assert told[0].startswith("Note: 2 of 222 files cannot be decoded and are left out (train/bee/")
    assert "train/bee/zero.jpg: it is empty" in told[0]
    assert told[1].startswith(
        "Note: 1 test file is in the training set too (train/car/0002.png = test/car/copy.png)"
    )
    assert "207 training examples, 3 clean ones" in told[-1]


def test_what_a_refusal_advises_prepare_takes_too(tree, tmp_path, capsys):
    empty_jpeg(tree)
    advised = refused(capsys, prepare()).rpartition(" ")[2].strip()
    assert advised.startswith("images.max_broken_fraction=")
    assert prepare("folder", "--set", advised) == 0
    capsys.readouterr()
    line = refused(capsys, prepare("folder", "--set", "batch_size=5"))
    assert "--set must be a setting of images, such as images.max_megapixels=50, got 'batch" in line
    write_tree(tmp_path / "data" / "webvisionmini", {"train": 2, "val": 1}, kind="jpg")
    line = refused(capsys, prepare("webvisionmini"))
    assert "leave it out with images.eval_sets=" in line
    assert prepare("webvisionmini", "--set", "images.eval_sets=") == 0


def test_damaged_metadata_are_no_matter_and_nothing_is_said_of_them(tree, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a title"  # Pillow: "Corrupt EXIF data" and "Tag data larger than file"
    for number, length in enumerate((30, 40)):
        content = exif.tobytes()[:length]
        picture(1, 0).save(tree / "train" / "bee" / f"{number}.jpg", exif=content)
    command = ["prepare", "folder", "--probe-per-class", "1", "--image-size", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "ieg_core.cli", *command],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "35 training examples, 3 clean ones" in done.stdout


# What is in a file of labels.


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
        "is for the data folder:0123456789ab, not for folder:",
    ),
    "not UTF-8": ("labels.csv", labels_csv(b"index,label\n0,b\xe9e\n"), "no CSV file in UTF-8"),
    "too many": ("labels.csv", labels_csv("index,label\n36,bee\n"), "index '36' in row 1"),
    "Parquet not UTF-8": (
        "labels.parquet",
        lambda path: path.write_bytes(to_parquet({"index": [0, 1], "label": not_utf8_column()})),
        "is no readable Parquet file",
    ),
    "Parquet no value of Python's": (
        "labels.parquet",
        lambda path: path.write_bytes(
            to_parquet({"index": [0], "label": pyarrow.array([10**15], pyarrow.timestamp("s"))})
        ),
        "is no readable Parquet file",
    ),
    "objects": ("labels.npy", pickled, "is called '.npy': expected .csv or .parquet"),
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
    monkeypatch.setitem(sources.LAYOUTS, "cifar10", layout)
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
    assert "it asks for posix.mkdir; nothing in it was run" in line
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
    assert "index, given, suggested: expected index and label, label is missing" in line
