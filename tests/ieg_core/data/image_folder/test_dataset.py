# SPDX-License-Identifier: Apache-2.0
import os
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.labels.label_file import read_labels
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig
from ieg_core.experiment.dataset_spec import parse
from tests.ieg_core.data.trees import COUNTS, NAMES, bomb, picture, write_tree

SMALL = ImagesConfig(size=8)
LARGE = ImagesConfig(size=100)


def test_folders_become_a_source(tree):
    source = open_source("folder", tree, SMALL)
    assert source.class_names == NAMES
    assert source.image_shape == (8, 8, 3)
    assert source.train_labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert source.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    # 12×10 pixels: the middle ten columns, brought to 8×8.
    image = picture(1, 3).resize((8, 8), Image.Resampling.BILINEAR, box=(1, 0, 11, 10))
    np.testing.assert_array_equal(source.train_images([9])[0], np.asarray(image))
    assert source.train_images([]).shape == (0, 8, 8, 3)
    assert source.crops is None
    assert source.probe_ids is None
    assert source.notes["num_unreadable"] == 0
    assert "probe/<class>/" in describe_notes(source.notes)[0]


def test_numbers_are_ordered_as_numbers(tmp_path):
    names = ("10", "9", "1", "02")
    source = open_source("folder", write_tree(tmp_path, COUNTS, names), SMALL)
    assert source.class_names == ("1", "02", "9", "10")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_of_paths_is_the_same_data_as_folders(tree, ending):
    folders = open_source("folder", tree, SMALL)
    rows = {
        part: [(f"{part}/{name}/{index:04}.png", name) for name in NAMES for index in range(count)]
        for part, count in COUNTS.items()
    }
    for part, listed in rows.items():
        if ending == "csv":
            text = "label,remark,path\n" + "".join(f"{label},x,{path}\n" for path, label in listed)
            (tree / f"{part}.csv").write_text(text)
        else:
            columns = {"path": [p for p, _ in listed], "label": [name for _, name in listed]}
            pyarrow.parquet.write_table(pyarrow.table(columns), tree / f"{part}.parquet")
    assert open_source("folder", tree, SMALL).digest == folders.digest


def test_equal_pixels_have_one_digest_and_another_label_or_pixel_another(tree, tmp_path):
    first = open_source("folder", tree, SMALL)
    again = write_tree(tmp_path / "again", COUNTS)
    # Another file, the same pixels.
    picture(0, 0).save(again / "train" / "apple" / "0000.png", compress_level=0)
    assert open_source("folder", again, SMALL).digest == first.digest
    changed = picture(0, 0)
    changed.putpixel((5, 5), (0, 0, 0))
    changed.save(again / "train" / "apple" / "0000.png")
    assert open_source("folder", again, SMALL).digest != first.digest
    moved = write_tree(tmp_path / "moved", COUNTS)
    (moved / "train" / "apple" / "0005.png").rename(moved / "train" / "bee" / "00000.png")
    assert open_source("folder", moved, SMALL).digest != first.digest


def test_what_was_decoded_once_is_not_read_again(tree):
    first = open_source("folder", tree, SMALL)
    for path in tree.glob("train/*/*.png"):
        # The same size and time, so that only a second reading would find the difference.
        found = path.stat()
        path.write_bytes(bytes(found.st_size))
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    again = open_source("folder", tree, SMALL)
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.train_images([0]), first.train_images([0]))
    # A touched file is read, and found to be broken.
    os.utime(tree / "train" / "apple" / "0000.png", ns=(0, 0))
    with pytest.raises(UserError, match=r"18 of 24 files in .* cannot be decoded"):
        open_source("folder", tree, SMALL)


def test_a_damaged_cache_is_not_believed(tree):
    first = open_source("folder", tree, SMALL)
    cached = list((tree / ".ieg-cache").iterdir())
    assert len(cached) == 2
    for path in cached:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert open_source("folder", tree, SMALL).digest == first.digest


def test_a_directory_that_cannot_be_written_to_is_read_anew_each_time(tree):
    (tree / ".ieg-cache").write_text("a file where the folder would be")
    assert open_source("folder", tree, SMALL).digest == open_source("folder", tree, SMALL).digest
    assert (tree / ".ieg-cache").is_file()


@pytest.mark.parametrize("images", [SMALL, LARGE], ids=["memory", "disk"])
def test_broken_files_are_left_out_and_listed(tree, images):
    (tree / "train" / "bee" / "zero.jpg").write_bytes(b"")
    (tree / "train" / "bee" / "bomb.png").write_bytes(bomb())
    (tree / "train" / "bee" / ".DS_Store").write_bytes(b"hidden")
    allowed = ImagesConfig(size=images.size, max_broken_fraction=0.1)
    source = open_source("folder", tree, allowed)
    assert len(source.train_labels) == 18
    assert source.notes["num_files"] == 26
    assert source.notes["unreadable"] == [
        ["train/bee/bomb.png", "30000×30000 pixels exceed 90 megapixels"],
        ["train/bee/zero.jpg", "it is empty"],
    ]
    (line, _) = describe_notes(source.notes)
    assert line.startswith("2 of 26 files cannot be decoded and are left out (train/bee/bomb.png:")
    # 2 of 26 is 7.69 %.
    with pytest.raises(UserError, match=r"2 of 26 .*at most 1.00% .*max_broken_fraction=0.077$"):
        open_source("folder", tree, images)


@pytest.mark.parametrize("images", [SMALL, LARGE], ids=["memory", "disk"])
def test_a_file_of_gigabytes_is_not_read_into_memory(tree, images):
    for name, head in (("film.mp4", b"\0\0\0\x18ftypmp42"), ("film.jpg", b"\xff\xd8\xff\xe0")):
        with (tree / "train" / "bee" / name).open("wb") as file:
            file.write(head)
            file.truncate(1 << 42)  # nothing of it on disk
    allowed = ImagesConfig(size=images.size, max_broken_fraction=0.1)
    assert open_source("folder", tree, allowed).notes["unreadable"] == [
        ["train/bee/film.jpg", "its 4,398,046 megabytes are too large for an image"],
        ["train/bee/film.mp4", "it is not a JPEG, PNG or WebP file"],
    ]


def test_the_share_that_is_advised_is_enough(tree):
    """1 of 27 files is 0.037037…: rounded as usual it would be refused again."""
    (tree / "train" / "bee" / "zero.jpg").write_bytes(b"")
    for name in ("a", "b"):
        shutil.copy(tree / "train/bee/0001.png", tree / f"train/bee/{name}.png")
    with pytest.raises(UserError, match="max_broken_fraction") as caught:
        open_source("folder", tree, SMALL)
    advised = float(str(caught.value).rpartition("=")[2])
    images = ImagesConfig(size=8, max_broken_fraction=advised)
    assert open_source("folder", tree, images).notes["num_unreadable"] == 1


def test_files_beside_the_class_folders_are_reported(tree):
    for part in ("train", "test"):
        shutil.copy(tree / "train/bee/0001.png", tree / part / "loose.png")
    (tree / "train" / "readme.txt").write_text("of these images")
    (tree / "train" / ".DS_Store").write_text("hidden")
    (tree / "notes.txt").write_text("beside the parts, where anything may lie")
    notes = open_source("folder", tree, SMALL).notes
    assert notes["num_files"] == 24
    assert notes["beside_classes"] == ["train/loose.png", "train/readme.txt", "test/loose.png"]
    assert describe_notes(notes)[0] == (
        "3 files are outside of class folders and left out (train/loose.png; train/readme.txt; "
        "test/loose.png): move images to be used into a class folder"
    )
    # Where a table says what belongs to the part, the folder may hold anything.
    (tree / "train.csv").write_text(
        "path,label\n" + "".join(f"train/{name}/0000.png,{name}\n" for name in NAMES)
    )
    assert open_source("folder", tree, SMALL).notes["beside_classes"] == ["test/loose.png"]
    (tree / "train.csv").unlink()
    for name in NAMES:
        shutil.rmtree(tree / "train" / name)
    with pytest.raises(UserError, match=r"has 0 class \(none\), and 2 files outside of class fol"):
        open_source("folder", tree, SMALL)


def test_files_of_both_sets_are_reported(tree):
    shutil.copy(tree / "train" / "car" / "0002.png", tree / "test" / "car" / "copy.png")
    notes = open_source("folder", tree, SMALL).notes
    assert notes["in_train_and_test"] == [["train/car/0002.png", "test/car/copy.png"]]
    assert any("1 test file is also in the training set" in line
               for line in describe_notes(notes))  # fmt: skip


def test_a_training_file_under_two_labels_is_reported(tree):
    shutil.copy(tree / "train" / "car" / "0002.png", tree / "train" / "bee" / "copy.png")
    shutil.copy(tree / "train" / "car" / "0003.png", tree / "train" / "car" / "copy.png")
    notes = open_source("folder", tree, SMALL).notes
    assert notes["num_under_two_labels"] == 1
    assert notes["under_two_labels"] == [["train/bee/copy.png", "train/car/0002.png"]]
    assert any("1 training file is also present with another label (train/bee/copy.png = train/car"
               in line for line in describe_notes(notes))  # fmt: skip


def test_the_probe_folder_is_the_probe(tmp_path):
    tree = write_tree(tmp_path / "data", {**COUNTS, "probe": 2})
    source = open_source("folder", tree, SMALL)
    assert source.probe_ids.tolist() == list(range(18, 24))
    assert source.train_labels[source.probe_ids].tolist() == [0, 0, 1, 1, 2, 2]

    def label_set(text, probe_per_class):
        return prepare_label_set(
            parse(text),
            seed=0,
            probe_per_class=probe_per_class,
            source=source,
            label_sets_dir=tmp_path / "label_sets",
        )

    with_probe, without = label_set("folder_uniform_0.5", 10), label_set("folder_uniform_0.5", 0)
    assert with_probe.probe_ids.tolist() == source.probe_ids.tolist()
    assert with_probe.train_ids.tolist() == list(range(18))
    # Methods without a probe see the same images, the probe's with corrupted labels.
    assert without.train_ids.tolist() == list(range(24))
    assert len(without.probe_ids) == 0
    np.testing.assert_array_equal(with_probe.noisy_labels, without.noisy_labels)
    # A long tail thins the training set alone: 6, 6·√0.3 and 6·0.3 of the classes.
    tail = label_set("folder_imbal_0.3", 10)
    assert np.bincount(tail.clean_labels[tail.train_ids]).tolist() == [6, 3, 1]
    assert len(tail.probe_ids) == 6


def test_the_noise_of_ones_own_labels_is_unknown(tree, tmp_path):
    source = open_source("folder", tree, SMALL)
    manifests = [
        prepare_label_set(
            parse(text), seed=0, probe_per_class=1, source=source, label_sets_dir=tmp_path / "o"
        ).manifest
        for text in ("folder", "folder_uniform_0.4")
    ]
    assert [m.clean_labels_known for m in manifests] == [False, True]
    assert [m.noise_rate for m in manifests] == [None, 0.4]
    # 0.4 · (3 − 1) / 3
    assert [m.true_flip_rate for m in manifests] == [None, pytest.approx(0.4 * 2 / 3)]
    assert manifests[0].notes["num_files"] == 24


def test_further_test_sets_lie_beside(tmp_path):
    tree = write_tree(tmp_path / "data", {**COUNTS, "photos": 1})
    source = open_source("folder", tree, ImagesConfig(size=8, eval_sets=("photos",)))
    assert source.eval_sets["photos"].labels.tolist() == [0, 1, 2]
    expected = picture(2, 20_000).resize((8, 8), Image.Resampling.BILINEAR, box=(1, 0, 11, 10))
    np.testing.assert_array_equal(source.eval_sets["photos"].images([2])[0], np.asarray(expected))
    with pytest.raises(UserError, match=r"no test set 'drawings': expected drawings/<class>/"):
        open_source("folder", tree, ImagesConfig(size=8, eval_sets=("drawings",)))


def test_large_images_are_read_when_they_are_asked_for(tmp_path):
    tree = write_tree(tmp_path / "data", COUNTS, kind="jpg", size=(160, 120))
    source = open_source("folder", tree, LARGE)
    assert source.image_shape == (100, 100, 3)
    # 7/8 of 120 is 105, centered.
    with Image.open(tree / "test" / "bee" / "0001.jpg") as image:
        box = (160 / 2 - 52.5, 60 - 52.5, 160 / 2 + 52.5, 60 + 52.5)
        expected = image.resize((100, 100), Image.Resampling.BILINEAR, box=box)
    np.testing.assert_array_equal(source.test_images([3])[0], np.asarray(expected))
    draws = np.array([[1.0, 0.5, 0, 0], [0.2, 0.5, 0.9, 0.9]])
    crops = source.crops([0, 0], draws)
    assert crops.shape == (2, 100, 100, 3)
    assert (crops[0] != crops[1]).any()
    np.testing.assert_array_equal(source.crops([0, 0], draws), crops)
    path = tree / "train" / "apple" / "0000.jpg"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match=r"0000.jpg has changed since the training was planned"):
        source.crops([0], draws[:1])
    path.unlink()
    with pytest.raises(UserError, match=r"0000.jpg can no longer be read .*No such file"):
        source.train_images([0])


def test_threads_read_what_one_thread_reads(tmp_path):
    tree = write_tree(tmp_path / "data", {"train": 20, "test": 1}, size=(130, 110))
    source = open_source("folder", tree, LARGE)
    ids = np.random.default_rng(0).permutation(60)
    together = source.train_images(ids)
    for place in (0, 17, 59):
        np.testing.assert_array_equal(together[place], source.train_images([ids[place]])[0])


# Where a data directory has no test set, a part of each class becomes one.


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
