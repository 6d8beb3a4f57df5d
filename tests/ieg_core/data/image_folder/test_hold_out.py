# SPDX-License-Identifier: Apache-2.0
"""Where a data directory has no test set, a part of each class becomes one."""

import shutil

import numpy as np
import pytest

from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.data.labels.label_file import read_labels
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig
from tests.ieg_core.data.trees import NAMES, picture, write_tree

SMALL = ImagesConfig(size=8)


def open_folder(place, images=SMALL):
    return open_source("folder", place, images)


@pytest.fixture
def photos(tmp_path):
    """Class folders alone, ten images each."""
    write_tree(tmp_path, {"photos": 10})
    return tmp_path / "photos"


def test_a_fifth_of_each_class_is_held_out(photos):
    source = open_folder(photos)
    assert source.class_names == NAMES
    assert np.bincount(source.test_labels).tolist() == [2, 2, 2]
    assert np.bincount(source.train_labels).tolist() == [8, 8, 8]
    assert len({*source.paths, *source.held_out}) == 30
    assert not {*source.paths} & {*source.held_out}
    assert source.paths[0].startswith("apple/")
    assert "there is no test set: 6 of 30 images" in describe_notes(source.notes)[0]


def test_train_alone_and_images_on_disk_are_split_alike(photos, tmp_path):
    first = open_folder(photos)
    photos.rename(tmp_path / "train")
    again = open_folder(tmp_path)
    assert again.held_out == [f"train/{path}" for path in first.held_out]
    assert again.digest == first.digest
    on_disk = open_folder(tmp_path, ImagesConfig(size=128))
    assert on_disk.held_out == again.held_out
    write_tree(tmp_path, {"test": 1})
    assert open_folder(tmp_path).held_out == []


def test_copies_stay_on_one_side_and_other_images_where_they_were(photos):
    held = open_folder(photos).held_out
    copied = photos / held[0]
    shutil.copy(copied, copied.with_name("copy.png"))
    assert set(open_folder(photos).held_out) == {*held, f"{copied.parent.name}/copy.png"}

    under_two_labels = photos / held[-1]
    assert under_two_labels.parent.name == "car"
    shutil.copy(under_two_labels, photos / "apple" / "no car.png")
    assert held[-1] not in open_folder(photos).held_out

    picture(0, 5).save(photos / "checked.png")
    (photos / "probe").mkdir()
    for name in NAMES:
        (photos / "probe" / name).mkdir()
        for path in photos.glob(f"{name}/*.png"):
            shutil.copy(path, photos / "probe" / name)
            break
    probe = {path.read_bytes() for path in photos.glob("probe/*/*")}
    after = open_folder(photos)
    assert after.probe_ids is not None
    assert not probe & {(photos / path).read_bytes() for path in after.held_out}
    assert after.notes["beside_classes"] == ["checked.png"]


def test_a_label_file_may_name_what_is_held_out(photos, tmp_path):
    source = open_folder(photos)
    rows = [f"{path},{'bee' if path in source.held_out else path.split('/')[0]}"
            for path in (*source.held_out, *source.paths)]  # fmt: skip
    (tmp_path / "cleaned.csv").write_text("\n".join(["path,label", *rows]))
    labels = read_labels(tmp_path / "cleaned.csv", source).labels
    np.testing.assert_array_equal(labels, source.train_labels)
    (tmp_path / "cleaned.csv").write_text("\n".join(["path,label", *rows, "other.png,bee"]))
    with pytest.raises(UserError, match=r"other.png' in row 31: expected one of the 30"):
        read_labels(tmp_path / "cleaned.csv", source)


def test_what_cannot_be_split_is_one_line(photos, tmp_path):
    for path in photos.glob("*/000[1-9].png"):
        path.unlink()
    with pytest.raises(UserError, match="no class with two images to hold one out"):
        open_folder(photos)
    write_tree(tmp_path / "other", {"train": 2, "Val": 2})
    with pytest.raises(UserError, match=r"Val looks like a part.*train, test and probe; rename"):
        open_folder(tmp_path / "other")
    (tmp_path / "other" / "train").rename(tmp_path / "other" / "Train")
    with pytest.raises(UserError, match="Train looks like a part"):
        open_folder(tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "Train")
    shutil.rmtree(tmp_path / "other" / "Val")
    with pytest.raises(UserError, match="has no training set: expected train/<class>/…, <class>/…"):
        open_folder(tmp_path / "other")
