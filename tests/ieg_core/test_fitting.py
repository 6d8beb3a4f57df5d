# SPDX-License-Identifier: Apache-2.0
import re
import subprocess
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import ieg_core
from ieg_core import fitting
from ieg_core.data.image_folder.arrays import ARRAYS, write_arrays
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.fitting import _held, _saved, _say_what_is_trusted, _settings_for, fit, setting_texts
from ieg_core.recipes.build import build_config
from ieg_core.recipes.image_folder import folder_family
from tests.docs.commands import commands, give, run_example
from tests.records import put

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
LABELS = np.tile(np.array([0, 1, 2], np.int32), 4)
NAMES = ("a", "b", "c")


class Dataset:
    """What is used of a tf.data.Dataset to know that its length counts batches."""

    as_numpy_iterator = None

    def __len__(self):
        return 2


@pytest.fixture
def files(tmp_path):
    """A data directory; its images are never decoded."""
    for part, count in (("train", 2), ("test", 1), ("probe", 1)):
        for name in "ab":
            for number in range(count):
                path = tmp_path / "photos" / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return tmp_path / "photos"


def test_it_is_a_name_of_the_package():
    assert ieg_core.fit is fit
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = ieg_core.fitt


def test_arrays_become_a_data_directory_and_come_back(tmp_path):
    parts = {"train": (IMAGES, LABELS), "test": (IMAGES[:2], LABELS[:2])}
    folder = write_arrays(tmp_path, parts, NAMES)
    assert write_arrays(tmp_path, parts, NAMES) == folder
    source = open_source("folder", folder, ImagesConfig(size=8))
    assert source.class_names == NAMES
    assert source.image_shape == (6, 8, 3)
    np.testing.assert_array_equal(source.train_images([3, 1]), IMAGES[[3, 1]])
    np.testing.assert_array_equal(source.train_labels, LABELS)
    assert source.probe_ids is None
    with_probe = write_arrays(tmp_path, {**parts, "probe": (IMAGES[:3], LABELS[:3])}, NAMES)
    assert with_probe != folder
    assert open_source("folder", with_probe, ImagesConfig(size=8)).probe_ids.tolist() == [
        12,
        13,
        14,
    ]
    with pytest.raises(UserError, match=r"6×8 pixels, received images.size=32: set images.size=8"):
        open_source("folder", folder)
    (folder / ARRAYS).write_bytes((folder / ARRAYS).read_bytes()[:100])
    with pytest.raises(UserError, match=r"arrays.safetensors is damaged"):
        open_source("folder", folder, ImagesConfig(size=8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"images": IMAGES.astype(np.int64)}, "int64 .*expected uint8", id="dtype"),
        pytest.param({"images": IMAGES / 1.0}, r"from 0 to 255: expected \[0, 1\]", id="range"),
        pytest.param({"images": IMAGES[..., :2]}, "with 1 or 3 channels", id="channels"),
        pytest.param({"images": IMAGES[:0], "labels": LABELS[:0]}, "at least one image", id="none"),
        pytest.param({"images": IMAGES[:0] / 1.0, "labels": LABELS[:0]}, "at least one image|uint8",
                     id="no floats"),
        pytest.param({"images": [IMAGES[0], IMAGES[1, :5]]}, "an array: expected images of one",
                     id="ragged"),
        pytest.param({"labels": LABELS.astype(np.int64) + 2**32, "class_names": NAMES},
                     "from 4294967296 to 4294967298: expected from 0 to 2", id="wraps around"),
        pytest.param({"labels": LABELS.astype(np.int64) * 10**12}, "label is 2000000000000, but",
                     id="far too many classes"),
        pytest.param({"labels": LABELS[:5]}, r"12 images and 5 labels", id="few"),
        pytest.param({"labels": LABELS * 1.0}, r"are float64: .*labels.astype\(int\)", id="floats"),
        pytest.param({"labels": LABELS[:, None]}, r"\(12, 1\): .*pass labels.ravel", id="column"),
        pytest.param({"test": IMAGES}, r"test is ndarray: expected a pair .*test=\(images",
                     id="no pair"),
        pytest.param({"test": (IMAGES[:2], [0, np.nan])}, "label at 1 is missing", id="test label"),
        pytest.param({"class_names": "abc"}, "class_names is 'abc': expected a list", id="string"),
        pytest.param({"images": None}, r"images have shape \(\)", id="no images"),
        pytest.param({"images": np.ma.masked_array(IMAGES, IMAGES > 250)}, "pixels are masked",
                     id="masked pixels"),
        pytest.param({"labels": LABELS * 2}, "no image of class '1'", id="gap"),
        pytest.param({"labels": LABELS * 0}, "at least two, without", id="one class"),
        pytest.param({"class_names": ["x", "y"]}, "labels range from 0 to 2: expected from 0 to 1",
                     id="too few names"),
        pytest.param({"test": (IMAGES[:2, :5], [0, 1])}, "all of one size", id="other size"),
        pytest.param({"probe": (IMAGES[:2], [0, 1])}, "part probe has no image of class '2'",
                     id="probe"),
        pytest.param({"labels": [*"abc"] * 4, "test": (IMAGES[:1], ["d"])},
                     "the label 'd' is not a class: expected one of a, b, c", id="unknown name"),
        pytest.param({"method": "iegg"}, "unknown method 'iegg': did you mean 'ieg'", id="method"),
        pytest.param({"method": ["ieg"]}, r"method is \['ieg'\]: expected a method's name",
                     id="list of methods"),
        pytest.param({"steps": 1.5}, "steps is 1.5: expected a whole number", id="steps"),
        pytest.param({"seed": None}, "seed is None: expected a whole number", id="seed"),
        pytest.param({"settings": "batch_size=10"}, "settings is 'batch_size=10': expected a list",
                     id="settings"),
        pytest.param({"settings": [("batch_size", 10)]}, r"settings has \('batch_size', 10\): exp",
                     id="pairs"),
        pytest.param({"network": keras.Sequential}, "network is Sequential: expected a Keras model",
                     id="class"),
        pytest.param({"network": "resnet2"}, "unknown network", id="network"),
        pytest.param({"settings": {"optimizer": {"rate": 1}}}, "unknown setting 'optimizer.rate'",
                     id="setting of a dictionary"),
        pytest.param({"images": [IMAGES[0], IMAGES[1][:3]], "labels": None}, "without labels",
                     id="no labels"),
        pytest.param({"images": "photos"}, "the folder photos and labels: expected all of it in",
                     id="folder and labels"),
        pytest.param({"network": "efficientnet-lite0", "method": "ieg"},
                     "method 'ieg' and network 'efficientnet-lite0': expected method='retrain'",
                     id="method on features"),
        pytest.param({"network": "efficientnet-lite0", "method": "", "steps": 5},
                     "on features counts epochs", id="steps on features"),
        pytest.param({"network": "efficientnet-lite0", "method": "", "settings": {"epoch": 5}},
                     "unknown setting of a classifier on features 'epoch': did you mean 'epochs'",
                     id="setting on features"),
        pytest.param({"network": "efficientnet-lite0", "method": "", "settings": {"epochs": "x"}},
                     "setting epochs: expected a whole number, got 'x'", id="value on features"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_anything_is_trained(tmp_path, changes, message):
    arguments = {"images": IMAGES, "labels": LABELS, "method": "supervised", "out": tmp_path}
    with pytest.raises(UserError, match=message) as caught:
        fit(**{**arguments, **changes})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trials").exists()


def test_few_photos_start_from_features(files, tmp_path, monkeypatch, capsys):
    chosen = []
    monkeypatch.setattr(fitting, "_fit_on_features", lambda *given: chosen.append(given[2:4]))
    photos = np.zeros((12, 17, 8, 3), np.uint8)
    for images, labels in ((photos, LABELS), ([*photos, photos[0, :9]], LABELS), (files, None)):
        fit(images, labels, out=tmp_path)
    assert chosen == [("efficientnet-lite0", "")] * 3
    assert capsys.readouterr().out.splitlines()[2] == (
        "fit: 4 images are too few to train from scratch: training a classifier on features of "
        "efficientnet-lite0; method='ieg' trains from scratch"
    )
    monkeypatch.setattr(fitting, "FEW", 12)
    for images in (photos, IMAGES[:5], Dataset()):
        assert not fitting._suit_features(images)
    monkeypatch.setattr(fitting, "FEW", 13)
    assert fitting._suit_features(photos)
    for option in ({"method": "forward"}, {"steps": 5}, {"settings": ["batch_size=4"]}):
        with pytest.raises(UserError, match="no image of class '0'"):
            fit(photos, LABELS + 1, out=tmp_path, **option)
    assert len(chosen) == 3


def test_without_weights_few_photos_are_trained_on_from_zero(monkeypatch, capsys):
    def fail(name):
        raise UserError(f"the weights of {name} are not installed")

    monkeypatch.setattr(fitting, "find_network", fail)
    assert not fitting._suit_features(np.zeros((12, 17, 8, 3), np.uint8))
    said = "fit: no classifier on features (the weights of efficientnet-lite0 are not installed)\n"
    assert capsys.readouterr().out == said


def test_the_test_set_of_a_folder_measures_a_classifier_on_features(files, monkeypatch, capsys):
    given = {}
    monkeypatch.setattr(fitting, "fit_on_features", lambda *_, **options: given.update(options))
    fit(files, network="efficientnet-lite0")
    assert given["test"] == ([files / "test/a/0.png", files / "test/b/0.png"], ["a", "b"])
    assert capsys.readouterr().out == "fit: retrain trusts the labels of the probe\n"


def test_settings_may_be_a_dictionary():
    flat = {"optimizer.learning_rate": 0.05, "augmentation.flip": False}
    nested = {"optimizer": {"learning_rate": 0.05}, "augmentation": {"flip": False}}
    expected = ["optimizer.learning_rate=0.05", "augmentation.flip=False"]
    assert setting_texts(flat) == setting_texts(nested) == expected
    assert setting_texts({"schedule": {"milestones": (0.5, 0.75)}}) == [
        "schedule.milestones=0.5,0.75"
    ]
    assert setting_texts(expected) == expected
    config = override(build_config(parse("folder"), "ieg"), expected)
    assert config.optimizer.learning_rate == 0.05
    assert config.augmentation.flip is False


def test_images_come_from_what_audit_takes(tmp_path):
    paths = []
    for place, pixels in enumerate(IMAGES):
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(pixels).save(paths[-1])
    names = [NAMES[label] for label in LABELS]
    pixels, labels, class_names, indices = _held(paths, names, None)
    assert list(indices) == list(range(len(paths)))
    np.testing.assert_array_equal(pixels, IMAGES)
    assert (labels.tolist(), class_names) == (LABELS.tolist(), NAMES)
    pairs = list(zip(IMAGES, LABELS.tolist(), strict=True))
    pixels, labels, *_ = _held(pairs, None, None)
    np.testing.assert_array_equal(pixels, IMAGES)
    assert labels.tolist() == LABELS.tolist()
    Image.fromarray(IMAGES[0, :4]).save(paths[0])
    with pytest.raises(UserError, match="the images have 2 sizes: expected one; resize them"):
        _held(paths, names, None)
    with pytest.raises(UserError, match="fit needs one label for each image"):
        _held(paths, [None, *names[1:]], None)


@pytest.mark.parametrize(
    ("method", "has_probe", "said"),
    [
        ("ieg", True, "fit: ieg trusts the labels of the probe"),
        ("ieg", False, "fit: ieg draws 10 images per class from yours and trusts their labels"),
        ("forward", False, "fit: forward trusts no label"),
        ("supervised", True, "fit: supervised trusts no label, and does not use the probe"),
    ],
)
def test_it_says_what_it_trusts(capsys, method, has_probe, said):
    _say_what_is_trusted(method, has_probe)
    assert capsys.readouterr().out.startswith(said)


def test_the_steps_of_a_training_are_shown(tmp_path, monkeypatch):
    looks, shown = [True, False], []

    class Process:
        def __init__(self, command, **_):
            assert command[-3:] == ["t", str(tmp_path), "data"]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self, timeout):
            if looks.pop(0):
                now = time.time() + 1
                put(tmp_path / "trials/t/progress.json", phase="training", step=30, num_steps=60,
                    steps_per_second=9.0, updated=now)  # fmt: skip
                raise subprocess.TimeoutExpired("", timeout)
            return 3

    class Line:
        def __init__(self, title, unit):
            shown.append((title, unit))

        def __call__(self, *numbers):
            shown.append(numbers)

        def close(self):
            shown.append("closed")

    monkeypatch.setattr(fitting.subprocess, "Popen", Process)
    monkeypatch.setattr(fitting, "ProgressLine", Line)
    assert fitting._run("t", tmp_path, Path("data")) == 3
    assert shown == [("fit", "steps"), (30, 60, 9.0), "closed"]


# TensorFlow's variables know nothing of NumPy 2's copy keyword.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_model_is_saved_under_what_it_is(tmp_path):
    model = keras.Sequential(
        [keras.Input((6, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    first = _saved(model, tmp_path)
    content = first.read_bytes()
    assert _saved(model, tmp_path) == first
    assert first.read_bytes() == content  # the run's name goes by the file
    model.layers[-1].bias.assign([1.0, 0.0, 0.0])
    assert _saved(model, tmp_path) != first


class Holder(keras.layers.Layer):
    def __init__(self, content):
        super().__init__()
        self.content = content

    def call(self, x):
        return x


@keras.saving.register_keras_serializable("test_notebook")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def model_with(layer):
    parts = [keras.Input((6, 8, 3)), keras.layers.Flatten(), layer, keras.layers.Dense(3)]
    return keras.Sequential(parts)


def test_a_model_that_cannot_be_saved_is_told(tmp_path):
    with pytest.raises(UserError, match=r"cannot be saved .NotImplementedError: .*get_config"):
        fit(IMAGES, LABELS, model_with(Holder(object())), method="supervised", out=tmp_path)
    assert not (tmp_path / "trials").exists()


@pytest.mark.parametrize("size", [8, 32, 96, 97, 224])
def test_arrays_of_any_size_are_cropped_at_random(size):
    chosen = _settings_for((size, size // 2, 1))
    config = override(build_config(parse("folder"), "ieg", image_size=size), chosen)
    assert (config.images.size, config.images.channels) == (size, 1)
    assert config.batch_size == folder_family(size).batch_size  # so planning fits it to the images
    assert config.augmentation.pad == max(1, size // 16)
    assert config.augmentation.strong_pad == (0 if size == 8 else size // 8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_model_that_the_training_refuses_is_the_callers_mistake(tmp_path):
    with pytest.raises(UserError, match=r"Could not locate class 'Doubled'.*package.module:fun"):
        fit(IMAGES, LABELS, model_with(Doubled()), method="supervised", out=tmp_path)
    assert not list(tmp_path.glob("trials/*/checkpoint"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_network_of_a_module_comes_back_with_its_own_layers(tmp_path):
    name = "tests.ieg_core.models.nets_of_mine:registered"
    fitted = fit(IMAGES, LABELS, name, method="supervised", steps=np.int64(2), out=tmp_path)
    assert any(type(layer).__name__ == "Doubled" for layer in fitted.model._flatten_layers())


@pytest.mark.slow
def test_the_example_of_the_documents(tmp_path):
    page = ROOT / "docs" / "notebook.md"
    accuracy, suspects, folder = run_example(page, 1, tmp_path)[-3:]
    assert float(re.search(r"([\d.]+) %", accuracy)[1]) > 65
    assert int(re.search(r"labels (\d+) are wrong", suspects)[1]) > 90
    gallery = tmp_path / folder / "audit" / "audit.html"
    gallery.unlink()
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (command,) = commands(page)
    give(command.replace("<run_dir>", folder), tmp_path)
    assert gallery.exists()
