# SPDX-License-Identifier: Apache-2.0
"""Bad input, given as people give it: on the command line of `ieg` and of `make sweep`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tests.doors import DOORS, files, prepare, refused, train
from tests.ieg_core.data.trees import NAMES, bomb, not_utf8_column, picture, write_tree

ROOT = Path(__file__).parents[2]
PATH = "train/bee/0000.png"


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


REFUSED = {
    "nothing there": (shutil.rmtree, "no data directory data: expected a folder with train/"),
    "empty class": (
        empty_class,
        "class 'dog' has no file in data/train/dog: expected at least one image",
    ),
    "one class": (one_class, "has 1 class (apple): expected at least two"),
    "one image": (one_image, "has 1 class (apple): expected at least two"),
    "class in test alone": (
        unknown_class,
        "test of data has classes that train does not have: wasp",
    ),
    "line break in a name": (unknown_class_of_two_lines, r"train does not have: wa\n\x1b[2Jsp"),
    "0-byte JPEG": (empty_jpeg, "1 of 43 files in data cannot be decoded (train/bee/zero.jpg: it"),
    "bomb": (decompression_bomb, "30000×30000 pixels exceed 90 megapixels"),
    "pipe": (
        pipe,
        "1 of 43 files in data cannot be decoded (train/bee/pipe.png: it is not a regular file",
    ),
    "dangling link": (
        dangling_link,
        "1 of 43 files that data lists do not exist (train/bee/link.png)",
    ),
    "link to itself": (link_to_itself, "(train/bee/link.png: too many levels of symbolic links)"),
    "link outside": (link_outside, "data/train/bee/link.png leads out of the data directory"),
    "class link outside": (class_link_outside, "train/dog leads out of the data directory"),
    "hidden link outside": (hidden_link_outside, "line 2 of data/train.csv leads out of the data"),
    "table link outside": (table_link_outside, "data/train.csv leads out of the data directory"),
    "links up": (links_up, "links back to"),
    "name not UTF-8": (
        name_not_utf8,
        r"the name b'caf\xe9.png' in data/train/bee is not valid UTF-8",
    ),
    "class not UTF-8": (class_not_utf8, r"the name b'\xff' in data/test is not valid UTF-8"),
    "no columns": (table("file,class\na,b\n"), "file, class: expected path and label; path and"),
    "no column": (parquet({"path": [PATH]}), "train.parquet has the columns path: expected"),
    "path outside": (table("path,label\n../x.png,bee\n"), "line 2 of data/train.csv leads out"),
    "path of no file": (table(b"path,label\na\0b.png,bee\n"), r"has the path 'a\x00b.png'"),
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
    assert f"images.eval_sets contains {part!r}, which every run uses anyway" in line
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
        "Note: 1 test file is also in the training set (train/car/0002.png = test/car/copy.png)"
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
        [sys.executable, "-m", "ieg_core.cli.main", *command],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "35 training examples, 3 clean ones" in done.stdout
