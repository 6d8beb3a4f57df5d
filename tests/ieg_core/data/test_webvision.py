# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ieg_core import recipes
from ieg_core.config import ImagesConfig
from ieg_core.data import open_source
from ieg_core.errors import UserError
from ieg_core.spec import parse
from tests.ieg_core.data.trees import write_tree

# TFDS asks protobuf for a field's label in a way that protobuf is about to drop.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")

IMAGES = ImagesConfig(size=100, eval_sets=("imagenet",))
SYNSETS = tuple(f"n{number:08}" for number in range(60))
BUILDS = Path(__file__).parent / "tfds_builds.py"
SIZE = (120, 104)


def build(out: Path, file_format: str, name: str, tree: Path, *splits: str) -> None:
    command = [sys.executable, str(BUILDS), str(out), file_format, name, str(tree), *splits]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_plain_folder_has_its_first_50_classes(tmp_path):
    counts = {"train": 2, "val": 1, "probe": 1, "imagenet": 1}
    write_tree(tmp_path / "webvisionmini", counts, SYNSETS, kind="jpg", size=SIZE)
    source = open_source("webvisionmini", tmp_path, IMAGES)
    assert source.class_names == SYNSETS[:50]
    assert len(source.train_labels) == 150  # the probe's behind
    assert source.probe_ids.tolist() == list(range(100, 150))
    assert len(source.test_labels) == 50
    assert source.eval_sets["imagenet"].labels.tolist() == list(range(50))
    assert source.eval_sets["imagenet"].images([7]).shape == (1, 100, 100, 3)
    config = recipes.build_config(parse("webvisionmini"), "ieg")
    assert config.images.eval_sets == ("imagenet",)


def test_numbers_and_synsets_stand_for_each_other(tmp_path):
    root = tmp_path / "webvisionmini"
    numbers = tuple(map(str, range(12)))
    write_tree(root, {"train": 1, "val": 1}, numbers, kind="jpg", size=SIZE)
    write_tree(root, {"imagenet": 1}, SYNSETS[:12], kind="jpg", size=SIZE)
    source = open_source("webvisionmini", tmp_path, IMAGES)
    assert source.class_names == numbers  # 2 before 10
    assert source.eval_sets["imagenet"].labels.tolist() == list(range(12))


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_tfds_build_is_the_same_data_as_its_folder(tmp_path, file_format):
    names = ("n1", "n2", "n3")
    tree = write_tree(tmp_path / "tree", {"train": 3, "val": 2}, names, kind="jpg", size=SIZE)
    imagenet = write_tree(tmp_path / "in", {"validation": 1}, names, kind="jpg", size=SIZE)
    data = tmp_path / "data"
    folder = data / "tensorflow_datasets" / "image_label_folder"
    build(folder, file_format, "webvisionmini", tree, "train", "val")
    build(data / "tfds", file_format, "imagenet2012", imagenet, "validation")
    source = open_source("webvisionmini", data, IMAGES)
    assert source.class_names == names
    assert source.train_labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert source.eval_sets["imagenet"].labels.tolist() == [0, 1, 2]
    plain = tmp_path / "plain" / "webvisionmini"
    plain.parent.mkdir()
    tree.rename(plain)
    (imagenet / "validation").rename(plain / "imagenet")
    expected = open_source("webvisionmini", tmp_path / "plain", IMAGES)

    def sums(images, count):
        return sorted(int(image.sum()) for image in images(np.arange(count)))

    # TFDS shuffles what it stores, so the order inside a class differs, and so does the digest.
    assert sums(source.train_images, 9) == sums(expected.train_images, 9)
    assert sums(source.test_images, 6) == sums(expected.test_images, 6)
    # Unpacked once; from then on the folder is what is read.
    again = open_source("webvisionmini", data, IMAGES)
    assert again.digest == source.digest
    assert not list((data / "webvisionmini").glob(".*.*"))


def test_what_is_missing_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no webvisionmini in .*/train/<class>/.*or a TFDS build"):
        open_source("webvisionmini", tmp_path, IMAGES)
    counts = {"train": 1, "val": 1}
    write_tree(tmp_path / "webvisionmini", counts, SYNSETS[:3], kind="jpg", size=SIZE)
    with pytest.raises(
        UserError, match=r"no second test set: .*leave it out with images.eval_sets"
    ):
        open_source("webvisionmini", tmp_path, IMAGES)
    without = ImagesConfig(size=100)
    assert open_source("webvisionmini", tmp_path, without).eval_sets == {}
