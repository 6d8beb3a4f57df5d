# SPDX-License-Identifier: Apache-2.0
"""Heads on folders of photos: trained, used by `ieg predict`, and refused, with a tiny network."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ieg_core import backend
from ieg_core.cli import main
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.features.classifier import FeatureClassifier
from ieg_core.host.runtime import Runtime
from ieg_core.recipes import build
from ieg_core.store.layout import HEAD
from ieg_core.store.records import ResultRecord, TrialRecord
from ieg_core.sweep.plan import plan
from ieg_core.sweep.request import SweepRequest
from ieg_core.training import head_trial
from ieg_core.training.run_trial import evaluate_trial, train_trial
from ieg_core.training.trial import open_trial

COLORS = {"blue": (40, 60, 200), "green": (60, 200, 60), "red": (200, 60, 60)}
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def started(tmp_path_factory):
    """Threads can be set only before TensorFlow starts, and these trials share its process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "start", lambda runtime: None)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in list(os.environ):  # what set_environment may change is put back
            patch.setenv(name, os.environ[name])
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A data directory with a further test set; names say the true color."""
    folder = tmp_path_factory.mktemp("photos")
    for part, count in (("train", 12), ("test", 4), ("more", 2)):
        for name, color in COLORS.items():
            for number in range(count):
                shape = (int(RNG.integers(20, 40)), int(RNG.integers(20, 40)), 3)
                pixels = np.clip(color + RNG.normal(0, 30, shape), 0, 255).astype(np.uint8)
                path = folder / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A file of a network that returns the mean color of images of 8 pixels."""
    import keras

    images = keras.Input((8, 8, 3))
    path = tmp_path_factory.mktemp("network") / "color.keras"
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(images)).save(path)
    return path


def request(photos, root, features, **changes):
    return SweepRequest(
        **{
            "dataset": "folder",
            "methods": ("retrain",),
            "features": str(features),
            "steps": 200,
            "settings": ("batch_size=16", "head.learning_rate=0.01"),
            "data_dir": str(photos),
            "results": str(root),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def trained(photos, network, tmp_path_factory):
    """The folder of a trained trial."""
    root = tmp_path_factory.mktemp("trained") / "runs"
    settings = ("batch_size=16", "head.learning_rate=0.01", "images.eval_sets=more")
    (trial,) = plan(request(photos, root, network, settings=settings)).trials
    train_trial(trial, root, photos, Runtime())
    return root / "trials" / trial


def test_a_head_on_photos_is_trained_and_measured(trained):
    result = ResultRecord.read(trained)
    assert result.accuracy_last == 1
    assert result.eval_sets["more"]["accuracy_ema"] == 1
    assert TrialRecord.read(trained).network_digest
    classifier = FeatureClassifier.read(trained / HEAD)
    assert classifier.class_names == tuple(COLORS)
    assert [each.size for each in classifier.features] == [8]


def test_a_lost_result_comes_back_with_its_further_test_sets(trained, photos):
    before = ResultRecord.read(trained)
    ResultRecord.path(trained).unlink()
    evaluate_trial(trained.name, trained.parent.parent, photos, Runtime())
    assert ResultRecord.read(trained) == before


def test_predict_computes_features_of_new_images(trained, photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    images = [photos / "test" / "green", photos / "test" / "red" / "0.png", tmp_path / "broken.png"]
    assert main.main(["predict", str(trained), *map(str, images), "--top", "1"]) == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert [line.split(": ")[1].split()[0] for line in lines] == ["green"] * 4 + ["red"]
    assert output.err.endswith("broken.png cannot be read: it is not a JPEG, PNG or WebP file\n")


def test_another_network_is_refused(trained, photos, network, capsys):
    content = network.read_bytes()
    try:
        network.write_bytes(content + b"\0")
        image = str(photos / "test" / "red" / "0.png")
        assert main.main(["predict", str(trained / HEAD), image]) == 2
        message = capsys.readouterr().err
        assert "color.keras has weights" in message
        assert message.count("\n") == 1
        with pytest.raises(UserError, match=r"code or file of the network .* has changed"):
            open_trial(trained.parent.parent, trained.name, photos)
    finally:
        network.write_bytes(content)


def precomputed(photos, rows, **changes):
    names = [color for part, n in ((0, 12), (0, 4)) for color in COLORS for _ in range(n)]
    colors = np.array([COLORS[name] for name in names], np.float32)
    values = np.resize(colors, (rows, 3)) + RNG.normal(0, 9, (rows, 3))
    for row, value in changes.items():
        values[int(row[3:])] = value
    return values


def test_a_file_of_features_is_training_and_test_images_in_order(photos, tmp_path, capsys):
    path = tmp_path / "colors.npy"
    np.save(path, precomputed(photos, 48))
    (trial,) = plan(request(photos, tmp_path / "runs", path)).trials
    train_trial(trial, tmp_path / "runs", photos, Runtime())
    folder = tmp_path / "runs" / "trials" / trial
    assert ResultRecord.read(folder).accuracy_last == 1
    assert main.main(["predict", str(folder), str(photos / "test" / "red" / "0.png")]) == 2
    assert "trained on the features in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "values", "settings", "message"),
    [
        (47, {}, (), r"features of 47 images: expected 48 rows, the 36 training images of .* 12"),
        (48, {"row7": np.nan}, (), r"features of row 7 in .*colors\.npy are not finite"),
        (48, {}, ("images.eval_sets=more",), "holds no features of the test set more"),
    ],
)
def test_a_file_of_other_features_is_refused(photos, tmp_path, rows, values, settings, message):
    path = tmp_path / "colors.npy"
    np.save(path, precomputed(photos, rows, **values))
    settings = ("batch_size=16", *settings)
    (trial,) = plan(request(photos, tmp_path / "runs", path, settings=settings)).trials
    with pytest.raises(UserError, match=message) as told:
        train_trial(trial, tmp_path / "runs", photos, Runtime())
    assert "\n" not in str(told.value)
    assert not (tmp_path / "runs" / "trials" / trial / HEAD).exists()


def test_a_class_of_one_image_is_refused_before_features_are_computed(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(head_trial, "extract_features", lambda *_, **__: pytest.fail("computed"))
    lines = [f"train/{name}/{n}.png,{name}" for name in ("blue", "green") for n in range(12)]
    for part, rows in (("train", [*lines, "train/red/0.png,red"]), ("test", lines)):
        (tmp_path / f"{part}.csv").write_text("\n".join(["path,label", *rows]))
    shutil.copytree(photos / "train", tmp_path / "train")
    (trial,) = plan(request(tmp_path, tmp_path / "runs", "efficientnet-lite0")).trials
    with pytest.raises(UserError, match="the class 'red' has one training image: expected at"):
        train_trial(trial, tmp_path / "runs", tmp_path, Runtime())


def test_several_features_are_concatenated_and_matched_by_the_names_in_a_file(
    photos, network, tmp_path
):
    path = tmp_path / "colors.npz"
    values = precomputed(photos, 48)
    names = [
        file.relative_to(photos).as_posix()
        for part in ("train", "test")
        for file in sorted((photos / part).rglob("*.png"))
    ]
    np.savez(path, x=values[::-1], paths=names[::-1])
    (trial,) = plan(request(photos, tmp_path / "runs", f"{path},{network}")).trials
    _, config, _, source = open_trial(tmp_path / "runs", trial, photos)
    assert config.network == f"{path}+{network}"
    found = head_trial._features(config, source, "test")
    assert [part.shape for part in found] == [(12, 3)] * 2
    np.testing.assert_array_equal(found[0], values[36:])


def test_photos_are_read_at_the_size_of_the_features():
    for base, sets in (("folder", ()), ("webvisionmini", ("imagenet",))):
        config = build.build_config(parse(base), "retrain", recipe="features")
        assert (config.images.size, config.images.eval_sets) == (160, sets)
        assert build.recipe_of(config) == config
    assert build.build_config(parse("cifar10"), "retrain", recipe="features").images is None


def test_unknown_features_are_refused_before_anything_is_written(photos, tmp_path):
    with pytest.raises(UserError, match=r"unknown features 'efficientnet-lite1': did you mean"):
        plan(request(photos, tmp_path / "runs", "efficientnet-lite1"))
    assert not (tmp_path / "runs").exists()
