# SPDX-License-Identifier: Apache-2.0
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from ieg_core.data.image_folder import listing
from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig
from ieg_core.experiment.dataset_spec import parse
from tests.ieg_core.data.trees import COUNTS, NAMES, picture, write_tree

SMALL = ImagesConfig(size=8)


def _empty_class(tree):
    (tree / "train" / "dog").mkdir()


def _one_class(tree):
    for part in COUNTS:
        for name in NAMES[1:]:
            shutil.rmtree(tree / part / name)


def _one_image(tree):
    _one_class(tree)
    for path in sorted(tree.glob("train/apple/*"))[1:]:
        path.unlink()


def _no_train(tree):
    shutil.rmtree(tree / "train")


def _unknown_class(tree):
    (tree / "test" / "bees").mkdir()
    picture(0, 0).save(tree / "test" / "bees" / "1.png")


def _not_utf8(tree):
    os.rename(
        tree / "train" / "bee" / "0000.png", os.fsencode(tree / "train/bee") + b"/caf\xe9.png"
    )


def _class_not_utf8(tree):
    os.rename(tree / "train" / "bee", os.fsencode(tree / "train") + b"/\xff")


def _link_outside(tree):
    (tree.parent / "secret.png").write_bytes(b"x")
    (tree / "train" / "bee" / "link.png").symlink_to(tree.parent / "secret.png")


def _folder_link_outside(tree):
    (tree.parent / "elsewhere").mkdir()
    (tree / "train" / "dog").symlink_to(tree.parent / "elsewhere")


def _csv(text):
    def write(tree):
        (tree / "train.csv").write_bytes(text.encode() if isinstance(text, str) else text)

    return write


def _no_parquet(tree):
    (tree / "train.parquet").write_bytes(b"PAR1 it is not")


def _probe_lacks_a_class(tree):
    (tree / "probe" / "bee").mkdir(parents=True)
    picture(1, 0).save(tree / "probe" / "bee" / "1.png")


def _all_of_a_class_broken(tree):
    for path in tree.glob("train/bee/*"):
        path.write_bytes(b"")


PATH = "train/bee/0000.png"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(shutil.rmtree, "no data directory .*train/<class>/", id="nothing there"),
        pytest.param(_empty_class, "class 'dog' has no file", id="empty class"),
        pytest.param(_one_class, r"has 1 class \(apple\): expected at least two", id="one class"),
        pytest.param(_one_image, r"has 1 class \(apple\)", id="one image"),
        pytest.param(_no_train, "no training set: expected train/<class>/", id="no training set"),
        pytest.param(_unknown_class, "test of .* classes that train does not have: bees: ",
                     id="class in test alone"),
        pytest.param(_not_utf8, r"name b'caf\\xe9.png' in .* is not valid UTF-8", id="name"),
        pytest.param(_class_not_utf8, r"name b'\\xff' in .* is not valid UTF-8", id="class name"),
        pytest.param(_link_outside, "link.png leads out of the data directory", id="link"),
        pytest.param(_folder_link_outside, "dog leads out of the data directory", id="class link"),
        pytest.param(_csv("file,label\n"), "columns file, label: .* path is missing", id="column"),
        pytest.param(_csv("a,b\n1,2\n"), "a, b: .* path and label are missing", id="columns"),
        pytest.param(_csv(""), r"columns \(none\): expected path and label", id="empty table"),
        pytest.param(_csv("path,label\n"), "lists no file", id="header alone"),
        pytest.param(_csv(f"path,label\n{PATH}\n"), "line 2 .* lacks a path or a label", id="cell"),
        pytest.param(_csv("path,label\n../secret.png,bee\n"), "line 2 .* leads out of the data",
                     id="path outside"),
        pytest.param(_csv("path,label\n/etc/passwd,bee\n"), "leads out.*'/etc/passwd'",
                     id="absolute path"),
        pytest.param(_csv(f"path,label\n{PATH},bee\n./{PATH},car\n"), "line 3 .* repeats .*",
                     id="listed twice"),
        pytest.param(_csv("path,label\ncaf\xe9.png,bee\n".encode("latin-1")),
                     "cannot read .*expected a CSV file in UTF-8", id="table not UTF-8"),
        pytest.param(_csv('path,label\n"open,bee\n'), "cannot read .*train.csv", id="open quote"),
        pytest.param(_csv(f"path,label\n{PATH},bee\ntrain/apple/0000.png,apple\nnowhere.png,car\n"),
                     "1 of 9 files that .* lists do not exist .nowhere.png", id="missing file"),
        pytest.param(_csv(f"path,label\n{PATH},nan\n"), "lacks a path or a label", id="nan"),
        pytest.param(_no_parquet, "cannot read .*train.parquet", id="no Parquet"),
        pytest.param(_probe_lacks_a_class, "no image of class 'apple'", id="probe lacks a class"),
        pytest.param(_all_of_a_class_broken, "no file of class 'bee' .*train .* can be decoded",
                     id="class of broken files"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tree, spoil, message):
    spoil(tree)
    images = SMALL
    if spoil is _all_of_a_class_broken:
        images = ImagesConfig(size=8, max_broken_fraction=0.5)
    with pytest.raises(UserError, match=message) as caught:
        open_source("folder", tree, images)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # nothing that a terminal cannot show


def test_noise_between_lookalikes_has_no_map_here():
    with pytest.raises(UserError, match=r"no asymmetric noise for 'folder'.*'folder_uniform'"):
        parse("folder_asymmetric_0.2")


def test_a_single_image_of_a_class_cannot_be_shared_with_a_probe(tmp_path):
    source = open_source("folder", write_tree(tmp_path / "data", {"train": 1, "test": 1}), SMALL)
    with pytest.raises(UserError, match="class 'apple' has 1 training examples; expected from 0"):
        prepare_label_set(
            parse("folder"),
            seed=0,
            probe_per_class=1,
            source=source,
            label_sets_dir=tmp_path / "label_sets",
        )


def test_a_list_that_was_cut_says_so():
    notes = {"num_unreadable": 2500, "num_files": 10**6, "unreadable": [["a.png", "it is empty"]]}
    (line,) = describe_notes(notes)
    assert "2500 of 1000000 files cannot be decoded" in line
    assert "the first 1 are listed in" in line


def test_arrays_without_a_digest_are_damaged(tmp_path):
    arrays = {"train_labels": np.zeros(1, np.int32)}
    path = tmp_path / "arrays.safetensors"
    save_file(arrays, path, metadata={"class_names": "null"})
    with pytest.raises(UserError, match=r"arrays.safetensors is damaged .*: write it again"):
        open_source("folder", tmp_path, SMALL)


def test_unicode_s_two_spellings_and_windows_paths_name_one_file_and_class(tmp_path):
    folder = tmp_path / "train" / "Ka\u0308fer"  # as a Mac stores it
    folder.mkdir(parents=True)
    for name in ("a\u0308.png", "b.png"):
        picture(0, 0).save(folder / name)
    assert {label for _, label in listing.folder_files(tmp_path, tmp_path / "train")} == {"Käfer"}
    table = tmp_path / "train.csv"
    table.write_text("path,label\ntrain\\Käfer\\ä.png,Käfer\ntrain/Käfer/b.png,Ka\u0308fer\n")
    assert listing._read_table(tmp_path, table) == [
        ("train/Ka\u0308fer/a\u0308.png", "Käfer"), ("train/Ka\u0308fer/b.png", "Käfer")
    ]  # fmt: skip
