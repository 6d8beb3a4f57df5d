# SPDX-License-Identifier: Apache-2.0
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ieg_core.data.open import open_source
from ieg_core.data.public.webvision import find_build, unpack
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig
from ieg_core.experiment.dataset_spec import parse
from ieg_core.host.files import read_json
from ieg_core.recipes import build as recipes
from tests.backends import run_on
from tests.ieg_core.data.trees import write_tree

# TFDS asks protobuf for a field's label in a way that protobuf is about to drop.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")
IMAGES = ImagesConfig(size=100, eval_sets=("imagenet",))
SYNSETS = tuple(f"n{number:08}" for number in range(60))
ROOT = Path(__file__).parents[4]
BUILDS = ROOT / "tests" / "ieg_core" / "data" / "tfds_builds.py"
SIZE = (120, 104)


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


def test_tables_are_a_plain_folder_too(tmp_path):
    root = tmp_path / "webvisionmini"
    write_tree(root, {"photos": 2}, SYNSETS[:3], kind="jpg", size=SIZE)
    for part, number in (("train", 0), ("val", 1), ("imagenet", 1)):
        lines = [f"photos/{name}/{number:04}.jpg,{name}" for name in SYNSETS[:3]]
        (root / f"{part}.csv").write_text("\n".join(["path,label", *lines]))
    source = open_source("webvisionmini", tmp_path, IMAGES)
    assert len(source.train_labels) == len(source.test_labels) == 3
    assert source.eval_sets["imagenet"].labels.tolist() == [0, 1, 2]


def test_numbers_and_synsets_stand_for_each_other(tmp_path):
    root = tmp_path / "webvisionmini"
    numbers = tuple(map(str, range(12)))
    write_tree(root, {"train": 1, "val": 1}, numbers, kind="jpg", size=SIZE)
    write_tree(root, {"imagenet": 1}, SYNSETS[:12], kind="jpg", size=SIZE)
    source = open_source("webvisionmini", tmp_path, IMAGES)
    assert source.class_names == numbers  # 2 before 10
    assert source.eval_sets["imagenet"].labels.tolist() == list(range(12))


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """For each format a folder with two TFDS builds and the images that they were made of."""
    names = ("n1", "n2", "n3")
    roots, wanted = {}, []
    for file_format in ("tfrecord", "array_record"):
        roots[file_format] = root = tmp_path_factory.mktemp(file_format)
        tree = write_tree(root / "tree", {"train": 3, "val": 2}, names, kind="jpg", size=SIZE)
        imagenet = write_tree(root / "in", {"validation": 1}, names, kind="jpg", size=SIZE)
        folder = root / "data" / "tensorflow_datasets" / "image_label_folder"
        wanted += [
            [str(folder), file_format, "webvisionmini", str(tree), "train", "val"],
            [str(root / "data/tfds"), file_format, "imagenet2012", str(imagenet), "validation"],
        ]
    # All in one process: it takes longer to import TFDS than to write them.
    run_on("tensorflow", BUILDS, json.dumps(wanted))
    return roots


@pytest.fixture(params=["tfrecord", "array_record"])
def built(request, builds):
    """The format of two TFDS builds, and their folder."""
    return request.param, builds[request.param]


@pytest.fixture
def data(built, tmp_path):
    """A copy of the two builds' data directory."""
    return shutil.copytree(built[1] / "data", tmp_path / "data")


def test_a_tfds_build_is_the_same_data_as_its_folder(tmp_path, built, data):
    file_format, root = built
    names = ("n1", "n2", "n3")
    tree, imagenet = (shutil.copytree(root / name, tmp_path / name) for name in ("tree", "in"))
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
    if file_format == "tfrecord":
        # As TFDS built it before version 4: without a word on the features but the classes' names.
        shutil.rmtree(data / "webvisionmini")
        for path in list(data.glob("**/features.json")):
            path.unlink()
        old = open_source("webvisionmini", data, IMAGES)
        assert old.digest == source.digest
        assert not list((data / "webvisionmini").glob(".*.*"))


def test_an_unpacking_that_stopped_half_way_goes_on(data):
    expected = open_source("webvisionmini", data, IMAGES)
    # Stopped between the renaming of the two parts, and before that in ImageNet.
    shutil.rmtree(data / "webvisionmini" / "train")
    shutil.rmtree(data / "webvisionmini" / "imagenet")
    assert open_source("webvisionmini", data, IMAGES).digest == expected.digest


def change_info(**changes):
    def change(folder):
        path = folder / "dataset_info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def change_file(change):
    def spoil(folder):
        (path,) = folder.glob("webvisionmini-train.*")
        path.write_bytes(change(path.read_bytes()))

    return spoil


def one_more(folder):
    path = folder / "dataset_info.json"
    path.write_text(path.read_text().replace('"9"', '"10"'))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: next(folder.glob("webvisionmini-val.*")).unlink(),
        change_file(lambda content: content[: len(content) // 2]),
        change_file(lambda content: content[:7]),
        change_file(lambda content: b""),
        one_more,
        lambda folder: (folder / "dataset_info.json").unlink(),
        lambda folder: (folder / "dataset_info.json").write_text(""),
        change_info(name="mnist"),
        lambda folder: (folder / "features.json").write_text("{}"),
    ],
    ids=["no file", "half a file", "a few bytes", "empty file", "an example less", "no info",
         "empty info", "another's info", "other features"],
)  # fmt: skip
def test_a_damaged_build_is_one_line_and_leaves_nothing(data, spoil):
    (folder,) = data.glob("tensorflow_datasets/**/1.0.0")
    spoil(folder)
    with pytest.raises(UserError, match=r"image_label_folder/webvisionmini/1.0.0 is damaged or "
                       r"incomplete \(.+\): get it again") as caught:  # fmt: skip
        open_source("webvisionmini", data, IMAGES)
    assert "\n" not in str(caught.value)
    assert not list(data.glob("webvisionmini/*"))


def record(label: int, image: bytes) -> bytes:
    """One record of a TFRecord file, as TensorFlow writes it."""
    values = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "score": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5])),
    }
    return framed(tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString())


def framed(content: bytes) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        with tf.io.TFRecordWriter(file.name) as writer:
            writer.write(content)
        return Path(file.name).read_bytes()


def write_old(
    folder: Path, files: dict[str, bytes], names: str = "n1\nn2\n", train: int = 1, val: int = 1
) -> Path:
    folder.mkdir(parents=True)
    (folder / "label.labels.txt").write_text(names)
    # Both of the ways in which TFDS has counted.
    splits = [
        {"name": "train", "numShards": "1", "shardLengths": [str(train - 1), "1"]},
        {"name": "val", "numShards": "1", "statistics": {"numExamples": str(val)}},
    ]
    (folder / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    for name, content in files.items():
        (folder / f"webvisionmini-{name}").write_bytes(content)
    return folder


def test_an_old_build_is_read_from_all_of_its_files(tmp_path):
    folder = tmp_path / "image_label_folder" / "webvisionmini" / "1.0.0"
    image = b"\xff\xd8\xff" + bytes(300)
    files = {
        "train.tfrecord-00000-of-00002": record(1, image + b"a") + record(0, image + b"b"),
        "train.tfrecord-00001-of-00002": record(1, image + b"c") + record(63, image),
        "val.tfrecord-00000-of-00001": record(0, image) + record(1, image),
    }
    write_old(folder, files, "".join(f"n{number}\n" for number in range(1, 65)), train=4, val=2)
    build = find_build(tmp_path, "webvisionmini")
    unpack(build, tmp_path / "out", {"train": ("train",), "test": ("test", "val")})
    written = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()[-1:]
               for path in (tmp_path / "out").rglob("*.jpg")}  # fmt: skip
    assert written == {
        "train/n2/00000000.jpg": b"a",
        "train/n1/00000001.jpg": b"b",
        "train/n2/00000002.jpg": b"c",
        "test/n1/00000000.jpg": b"\0",
        "test/n2/00000001.jpg": b"\0",
    }


WHOLE = record(0, b"image")
ONE = "train.tfrecord-00000-of-00001"
TERABYTE = bytes.fromhex("0000000000010000aa3d6be4")
"""The beginning of a record of 2⁴⁰ bytes, with its checksum."""
VAL = {"val.tfrecord-00000-of-00001": WHOLE}


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        ({ONE: WHOLE[:-5]}, "a\n", r"damaged or incomplete \(webvisionmini-train.* is truncated\)"),
        ({ONE: WHOLE[:7]}, "a\n", r"damaged or incomplete \(webvisionmini-train.* is truncated\)"),
        (
            {ONE: WHOLE + WHOLE[:7]},
            "a\n",
            r"\(webvisionmini-train.tfrecord-00000-of-00001 is truncated\)",
        ),
        ({ONE: b""}, "a\n", r"its files hold 0 examples, but dataset_info.json lists 1\)"),
        ({ONE: WHOLE * 2}, "a\n", r"its files hold 2 examples, but dataset_info.json lists 1\)"),
        ({ONE: record(1, b"")}, "a\n", r"it has 1 class names, but train has label 1\)"),
        ({ONE: b"\xff" * 100}, "a\n", r"\(webvisionmini-train.* is truncated\)"),
        ({ONE: TERABYTE}, "a\n", r"\(webvisionmini-train.* is truncated\)"),
        ({ONE: WHOLE[:12] + b"x" * (len(WHOLE) - 12)}, "a\n", r"\(they are damaged\)"),
        ({ONE: WHOLE[:-1] + b"\xff"}, "a\n", r"\(they are damaged\)"),
        ({ONE: framed(b"\xff" * 9)}, "a\n", r"\(they are damaged\)"),
        ({ONE: framed(b"")}, "a\n", r"\(they have other features\)"),
        ({"train.tfrecord-00000-of-00002": WHOLE}, "a\n", "has 1 of 2 files of train"),
        ({}, "a\n", "has the splits val: expected train"),
        ({ONE: WHOLE}, "../../out\n", r"has a class '../../out': expected a valid folder"),
    ],
)
def test_a_damaged_old_build_is_one_line_and_leaves_nothing(tmp_path, files, names, message):
    write_old(tmp_path / "data" / "tfds" / "webvisionmini" / "1.0.0", VAL | files, names)
    with pytest.raises(UserError, match=message) as caught:
        open_source("webvisionmini", tmp_path / "data", IMAGES)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*") if path.suffix == ".jpg"] == []
    assert not list(tmp_path.glob("data/webvisionmini/*"))


def test_tensorflow_says_nothing_of_its_own(tmp_path):
    folder = tmp_path / "data" / "tfds" / "webvisionmini" / "1.0.0"
    write_old(folder, VAL | {ONE: WHOLE[:-1] + b"\xff"})
    done = subprocess.run(
        [sys.executable, "-m", "ieg_core.cli.main", "prepare", "webvisionmini"],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ieg: error: data/tfds/webvisionmini/1.0.0/webvisionmini-train.")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "its dataset_info.json is missing"),
        ("", "its dataset_info.json does not give the number of examples of train"),
        ("[]", "its dataset_info.json does not give the number of examples of train"),
        ("[" * 100_000, "its dataset_info.json does not give the number of examples of train"),
        ('{"splits": [{"name": "test"}]}', "does not give the number of examples of train"),
    ],
)
def test_an_old_build_without_its_counts_is_not_whole(tmp_path, text, message):
    folder = write_old(tmp_path / "tfds" / "webvisionmini" / "1.0.0", VAL | {ONE: WHOLE})
    (folder / "dataset_info.json").unlink()
    if text is not None:
        (folder / "dataset_info.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_source("webvisionmini", tmp_path, IMAGES)


def test_the_newest_whole_build_is_taken(tmp_path):
    for name in ("9.0.0", "10.0.0", "incomplete.AB12CD_11.0.0"):
        write_old(tmp_path / "webvisionmini" / name, VAL | {ONE: WHOLE})
    assert find_build(tmp_path, "webvisionmini").place.name == "10.0.0"


def test_what_lies_there_instead_is_told(tmp_path):
    folder = tmp_path / "tensorflow_datasets" / "image_label_folder"
    (folder / "webvisionmini" / "1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"image_label_folder/webvisionmini has no train/ and no"):
        open_source("webvisionmini", tmp_path, IMAGES)
    (tmp_path / "webvisionmini.zip").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"webvisionmini.zip is not unpacked: expected .*; unpack it in place"
    ):
        open_source("webvisionmini", tmp_path, IMAGES)
    counts = {"train": 1, "val": 1, "imagenet": 1}
    write_tree(folder / "webvisionmini", counts, SYNSETS[:3], kind="jpg", size=SIZE)
    assert open_source("webvisionmini", tmp_path, IMAGES).class_names == SYNSETS[:3]


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "method", "network"),
    [
        ("tensorflow", "ieg", "resnet18"),
        ("tensorflow", "fsr", "resnet50"),
        ("jax", "ieg", "resnet18"),
    ],
)
def test_the_recipe_runs_on_a_small_tree(tmp_path, backend, method, network):
    names = tuple(f"n{number}" for number in range(4))
    counts = {"train": 6, "val": 1, "probe": 2, "imagenet": 1}
    write_tree(tmp_path / "webvisionmini", counts, names, kind="jpg", size=(150, 140))
    settings = ["images.size=128", "batch_size=4", "schedule.warmup_epochs=0"]
    settings.append("optimizer.learning_rate=0.001")  # the recipe's is for batches of 64 and 128
    if method == "fsr":
        settings += ["method.start_epoch=0", "method.capacity=8", "method.dictionary_batch_size=4"]
    command = [sys.executable, "-m", "ieg_core.cli.main", "train", "--dataset", "webvisionmini"]
    command += ["--method", method, "--network", network, "--steps", "3"]
    command += ["--data-dir", str(tmp_path), "--out", str(tmp_path / "runs"), "--devices", "cpu"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(
        command,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = (tmp_path / "runs" / "trials").iterdir()
    row = read_json(trial / "result.json")
    assert row["steps"] == 3
    assert 0 <= row["eval_sets"]["imagenet"]["accuracy_ema"] <= 1
    curve = read_json(trial / "curves.json")["evaluations"][-1]
    assert curve["accuracy_ema_imagenet"] == row["eval_sets"]["imagenet"]["accuracy_ema"]
