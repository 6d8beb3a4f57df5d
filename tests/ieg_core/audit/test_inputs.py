# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.audit.inputs import list_images, open_files
from ieg_core.errors import UserError
from tests.ieg_core.data.trees import picture, write_tree

ALL = np.arange(6)


@pytest.mark.parametrize("change", ["overwritten", "gone"])
def test_a_file_that_changes_under_way_is_refused(tmp_path, change):
    """Its features would be cached as those of the content that it had before."""
    folder = write_tree(tmp_path / "photos", {".": 3}, ("a", "b"))
    opened = open_files(list_images(folder), 16)
    assert opened.read_batch(ALL).shape == (6, 16, 16, 3)
    file = folder / "b/0001.png"
    file.unlink()
    if change == "overwritten":
        picture(2, 7, (40, 30)).save(file)
    with pytest.raises(UserError, match=r"b/0001.png (has changed|can no longer be read)"):
        opened.read_batch(ALL)


def test_files_that_cannot_be_decoded_are_grouped_by_reason(tmp_path):
    folder = write_tree(tmp_path / "photos", {".": 3}, ("a", "b"))
    for name in ("Thumbs.db", "1.heic", "2.heic"):
        (folder / "a" / name).write_bytes(b"no image")
    (folder / "b/empty.jpg").touch()
    opened = open_files(list_images(folder), 16)
    (note,) = opened.images.notes
    assert note == (
        "4 of 10 files cannot be decoded: it is not a JPEG, PNG or WebP file (3 files, such as "
        "a/1.heic, a/Thumbs.db); it is empty (b/empty.jpg)"
    )
    assert opened.broken_share == 0.4


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("labels.csv", "file;label\n", "; labels.csv has the columns file, label; or audit"),
        ("labels.csv", "", "; labels.csv has the columns (none); or audit"),
        ("labels.xlsx", "", "; labels.xlsx is not read, save it as a CSV file; or audit"),
        ("note.md", "", "separated by commas or semicolons; or audit"),
    ],
)
def test_a_single_class_folder_says_what_may_hold_the_labels(tmp_path, name, content, hint):
    write_tree(tmp_path / "photos", {"images": 1})
    (tmp_path / "photos" / name).write_text(content)
    with pytest.raises(UserError, match="has one class folder, images: expected at le") as caught:
        list_images(tmp_path / "photos")
    assert f"{hint} {tmp_path}/photos/images, if its folders are the classes" in str(caught.value)


def test_a_table_beside_class_folders_is_noted(tmp_path):
    folder = write_tree(tmp_path, {".": 1})
    (folder / "labels.csv").write_text("path,label\napple/0000.png,car\n")
    listed = list_images(folder)
    assert listed.labels[0] == ("apple",)
    assert "not read, beside the class folders: labels.csv" in listed.notes[0]
    assert list_images(folder / "labels.csv").notes == ()
    (folder / "labels.csv").rename(folder / "train.csv")
    assert list_images(folder).labels == (("car",),)


def test_a_table_of_one_class_folder_is_read(tmp_path):
    folder = write_tree(tmp_path, {"images": 1}, ("x",))
    rows = "images/x/0000.png,images\n"
    (folder / "labels.csv").write_text(f"path,label,label_2\n{rows[:-1]},dog\n")
    assert list_images(folder).labels == (("images", "dog"),)
