# SPDX-License-Identifier: Apache-2.0
import pytest

from ieg_core.data.image_folder.labeled_files import list_labeled_files
from ieg_core.errors import UserError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def test_class_folders_alone(tmp_path):
    # A class may be called train: it is a part only where it holds folders.
    touch(tmp_path, "train/1.jpg", "car/2.jpg", "car/more/3.jpg", "loose.png")
    listed = list_labeled_files(tmp_path)
    assert listed.paths == ("car/2.jpg", "car/more/3.jpg", "train/1.jpg")
    assert listed.labels == (("car",), ("car",), ("train",))
    assert "1 image is left out, outside of class folders" in listed.notes[0]


def test_splits(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg", "probe/b/4.jpg", "x/5.jpg")
    listed = list_labeled_files(tmp_path)
    assert listed.paths == ("train/a/1.jpg", "train/b/2.jpg", "probe/b/4.jpg")
    assert listed.labels == (("a",), ("b",), (None,))
    assert listed.trusted == (None, None, "b")
    assert "test set is not judged" in listed.notes[0]
    assert "x next to train/" in listed.notes[1]
    with_test = list_labeled_files(tmp_path, with_test=True)
    assert with_test.labels[with_test.paths.index("test/a/3.jpg")] == ("a",)


def test_a_test_set_beside_class_folders(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "test/a/3.jpg", "probe/b/4.jpg", "probe/loose.jpg")
    listed = list_labeled_files(tmp_path)
    assert listed.paths == ("a/1.jpg", "b/2.jpg", "probe/b/4.jpg")
    assert "test set is not judged" in listed.notes[0]
    assert "1 image is left out, outside of class folders" in listed.notes[1]
    with_test = list_labeled_files(tmp_path, with_test=True)
    assert with_test.paths == ("a/1.jpg", "b/2.jpg", "test/a/3.jpg", "probe/b/4.jpg")


def test_one_folder_beside_a_table_holds_its_images(tmp_path):
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    assert list_labeled_files(tmp_path).labels == (("images",), ("images",))
    (tmp_path / "labels.csv").write_text("path,label\nimages/2.jpg,cat\nimages/1.jpg,dog\n")
    listed = list_labeled_files(tmp_path)
    assert listed.paths == ("images/2.jpg", "images/1.jpg")
    assert listed.labels == (("cat",), ("dog",))
    touch(tmp_path, "more/3.jpg")
    assert list_labeled_files(tmp_path).labels == (("images",), ("images",), ("more",))


def test_what_class_folders_do_not_have_is_refused(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    with pytest.raises(UserError, match="no column anna: annotators are columns of a table"):
        list_labeled_files(tmp_path, annotators=["anna"])
    with pytest.raises(UserError, match="has no test set"):
        list_labeled_files(tmp_path, with_test=True)


def test_a_table_of_annotators(tmp_path):
    table = tmp_path / "photos.csv"
    table.write_text("path,label,anna,label_2,width\n1.jpg,cat,dog,bird,100\n2.jpg,dog,,cat,200\n")
    for place in (table, tmp_path):
        listed = list_labeled_files(place)
        assert listed.annotators == ("label", "anna", "label_2")
        assert listed.labels == (("cat", "dog", "bird"), ("dog", None, "cat"))
        assert "width" in listed.notes[0]
    assert list_labeled_files(table, annotators=["anna"]).labels == (("dog",), (None,))


def test_annotators_alone_and_numbers_as_pandas_writes_them(tmp_path):
    table = tmp_path / "photos.csv"
    table.write_text("path,anna,ben\n1.jpg,3.0,4\n2.jpg,,3\n")
    listed = list_labeled_files(table)
    assert listed.labels == (("3", "4"), (None, "3"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,label_2\n1.jpg,a,\n", "column label_2 of .* has no label in any row"),
        ("path,given,suggested,score\n1.jpg,a,b,1\n", "table of an audit"),
        ("path\n1.jpg\n", "expected path, label"),
        ("label\na\n", "the columns label: expected path, label and further columns of labels"),
        ("path|label\n1.jpg|a\n", "the columns path.label: .*, separated by commas"),
        ("path,label\n1.jpg,a\n1.jpg,b\n", "repeats '1.jpg'"),
        ("path,label\n/etc/1.jpg,a\n", "leads out of the data directory"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, message):
    (tmp_path / "photos.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        list_labeled_files(tmp_path / "photos.csv")


def test_with_features_a_table_needs_no_paths(tmp_path):
    (tmp_path / "photos.csv").write_text("label\na\nb\n")
    listed = list_labeled_files(tmp_path / "photos.csv", needs_paths=False)
    assert listed.paths == ("0", "1")
    assert not listed.has_files


def test_a_folder_without_classes(tmp_path):
    touch(tmp_path, "1.jpg")
    with pytest.raises(UserError, match="no class folders"):
        list_labeled_files(tmp_path)
