# SPDX-License-Identifier: Apache-2.0
"""An exported model: what goes with it, what it says of files, and that Keras alone can use it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from ieg_core.cli import main, predict
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.models import user_network
from ieg_core.store.model_file import MEMBER, ModelFacts, read_facts, write_facts
from ieg_core.sweep import worker
from tests.backends import run_on

# Keras hands TensorFlow's tensors to NumPy in a way that NumPy is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ieg_core":
            raise ImportError("blocked")

sys.meta_path.insert(0, Blocked())
import keras, numpy as np

model = keras.models.load_model(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.asarray(model(images.astype("float32"), training=False)))
"""
FACTS = ModelFacts(class_names=("dark", "bright"), image_shape=(4, 4, 1))
THEIRS = """
import keras

@keras.saving.register_keras_serializable("theirs")
class Inverted(keras.layers.Layer):
    def call(self, x):
        return 255 - x

def build(num_classes, image_shape):
    raise AssertionError("only its layers are needed")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run on the digits, and some of its test images as PNG files."""
    folder = tmp_path_factory.mktemp("run")
    run_on("tensorflow", Path(__file__).with_name("short_run.py"), str(folder / "runs"))
    (model,) = (folder / "runs" / "trials").glob("*/model.keras")
    source = open_source("digits", folder)
    images = source.test_images(np.arange(12))
    paths = []
    for index, image in enumerate(images):
        paths.append(folder / f"digit {index}.png")
        Image.fromarray(image[..., 0]).save(paths[-1])
    return model, images, source.test_labels[:12], paths


def test_class_names_and_preprocessing_go_with_it(trained):
    facts = read_facts(trained[0])
    assert facts.class_names == tuple("0123456789")
    assert facts.image_shape == (8, 8, 1)
    assert facts.preprocessing == "square"
    assert (facts.trained_on, facts.method) == ("digits_uniform_0.2", "supervised")


def test_keras_alone_predicts_the_same(trained, tmp_path, capsys):
    model, images, labels, paths = trained
    np.save(tmp_path / "images.npy", images)
    arguments = [str(model), str(tmp_path / "images.npy"), str(tmp_path / "logits.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *arguments], check=True, cwd=tmp_path)
    logits = np.load(tmp_path / "logits.npy")
    assert (logits.argmax(1) == labels).mean() > 0.7

    run = model.parent.with_name(model.parent.name.rpartition("-")[0])  # by its name alone
    assert main.main(["predict", str(run), *map(str, paths), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(paths)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for line, path, row in zip(lines, paths, shares, strict=True):
        best, second = np.argsort(-row)[:2]
        first = f"{path}: {best} {100 * row[best]:.1f} %, {second} "
        assert line.startswith(first)


def test_files_that_cannot_be_read_are_told_and_cost_themselves_alone(trained, tmp_path, capsys):
    model, _, _, paths = trained
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    missing = tmp_path / "missing.png"
    code = main.main(["predict", str(model), str(broken), str(paths[0]), str(missing)])
    output = capsys.readouterr()
    assert code == worker.EXIT_FAILED
    assert len(output.out.splitlines()) == 1
    assert output.err.splitlines() == [
        f"ieg: {broken} cannot be read: it is not a JPEG, PNG or WebP file",
        f"ieg: {missing} cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize("kind", ["missing", "text", "archive"])
def test_no_model(tmp_path, capsys, kind):
    path = tmp_path / "model.keras"
    if kind == "text":
        path.write_text("no model")
    if kind == "archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps({}))
    with pytest.raises(UserError):
        read_facts(path)
    assert main.main(["predict", str(path), "image.png"]) == worker.EXIT_USER_ERROR
    assert capsys.readouterr().err.count("\n") == 1


# `ieg predict` on folders and on files that are no models: nothing here is trained.


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A Keras model as anybody saves it: bright where the mean of the pixels is above 100."""
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    kernel = np.stack([np.zeros(16), np.full(16, 1 / 16)], 1)
    network.set_weights([kernel, np.array([100.0, 0.0])])
    path = tmp_path_factory.mktemp("models") / "bare.keras"
    network.save(path)
    return path


@pytest.fixture
def exported(bare, tmp_path):
    """A function that gives the model some facts, or a member of that name."""

    def build(facts=FACTS):
        path = tmp_path / "model.keras"
        path.write_bytes(bare.read_bytes())
        if isinstance(facts, ModelFacts):
            write_facts(path, facts)
        else:
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(MEMBER, facts)
        return str(path)

    return build


def paint(path, gray):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 5), gray).save(path)


def test_a_folder_stands_for_its_files(exported, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict, "BATCH", 2)
    photos = tmp_path / "photos"
    for number, gray in enumerate((200, 0, 250)):
        paint(photos / f"{number}.png", gray)
    paint(photos / "more" / "4.png", 10)
    (photos / "3.jpg").write_bytes(b"")
    (photos / ".DS_Store").write_bytes(b"hidden")
    os.mkfifo(photos / "pipe.png")
    (photos / "two\nlines.png").write_bytes(b"no picture")
    code = main.main(["predict", exported(), "photos", "photos/1.png", "--top", "1"])
    output = capsys.readouterr()
    assert code == worker.EXIT_FAILED
    assert output.out.splitlines() == [
        "photos/0.png: bright 100.0 %",
        "photos/1.png: dark 100.0 %",
        "photos/2.png: bright 100.0 %",
        "photos/more/4.png: dark 100.0 %",
        "photos/1.png: dark 100.0 %",
    ]
    assert output.err.splitlines() == [
        "ieg: photos/3.jpg cannot be read: it is empty",
        "ieg: photos/pipe.png cannot be read: it is not a regular file",
        r"ieg: photos/two\nlines.png cannot be read: it is not a JPEG, PNG or WebP file",
    ]


def refused(capsys, arguments):
    code = main.main(["predict", *arguments])
    output = capsys.readouterr()
    assert code == worker.EXIT_USER_ERROR
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


def test_an_image_is_one_line_whatever_its_class_is_called(exported, tmp_path, capsys):
    paint(tmp_path / "0.png", 250)
    names = ("dark", "bri\nght\x1b[2J\u202e")
    model = exported(ModelFacts(class_names=names, image_shape=(4, 4, 1)))
    assert main.main(["predict", model, str(tmp_path / "0.png"), "--top", "1"]) == 0
    line = capsys.readouterr().out
    assert line == f"{tmp_path}/0.png: bri\\nght\\x1b[2J\\u202e 100.0 %\n"


def test_a_folder_without_files_is_told(exported, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    line = refused(capsys, [exported(), str(tmp_path / "photos")])
    assert "no files in" in line


def test_a_model_without_class_names_is_told(bare, tmp_path, capsys):
    paint(tmp_path / "0.png", 200)
    line = refused(capsys, [str(bare), str(tmp_path / "0.png")])
    assert "bare.keras was not exported by this package: expected the model.keras of a run" in line


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ("[]", "is damaged (received [], expected an object)"),
        ("3", "is damaged (received 3, expected an object)"),
        ('{"schema": 1, "class_names": ["a", "b"]}', "is damaged (it has no sha256"),
        (
            ModelFacts(("a", "b", "c"), (4, 4, 1)),
            "maps (None, 4, 4, 1) to (None, 2), but its ieg.json has 3 class names",
        ),
        (ModelFacts(("a", "b"), (8, 8, 1)), "2 class names and images of 8×8×1"),
        (ModelFacts(("a", "b"), (4, 4, 1), "zoom"), "the preprocessing 'zoom': expected square or"),
        (ModelFacts(("a", "b"), (4, 6, 1)), "takes images of 4×6 pixels"),
    ],
)
def test_facts_that_are_not_the_models_are_told(exported, tmp_path, capsys, facts, message):
    paint(tmp_path / "0.png", 200)
    assert message in refused(capsys, [exported(facts), str(tmp_path / "0.png")])


def test_a_model_that_keras_cannot_load_is_told(tmp_path, capsys):
    paint(tmp_path / "0.png", 200)
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    write_facts(path, FACTS)
    assert "cannot be loaded" in refused(capsys, [str(path), str(tmp_path / "0.png")])


def test_layers_of_ones_own_come_from_a_module_that_the_reader_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "net_of_theirs.py").write_text(THEIRS)
    layer = user_network.import_module("net_of_theirs:build").Inverted()
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), layer, keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    network.set_weights([np.stack([np.zeros(16), np.full(16, 1 / 16)], 1), np.array([100.0, 0.0])])
    network.save("model.keras")
    write_facts(
        tmp_path / "model.keras",
        ModelFacts(("dark", "bright"), (4, 4, 1), network="net_of_theirs:build"),
    )
    # As in a process of its own, which has not imported the module.
    del sys.modules["net_of_theirs"], keras.saving.get_custom_objects()["theirs>Inverted"]
    paint(tmp_path / "0.png", 0)
    command = ["model.keras", "0.png", "--top", "1"]
    line = refused(capsys, command)
    assert "Could not locate class 'Inverted'" in line
    assert "--network net_of_theirs:build, which imports that module" in line
    assert "net_of_theirs" not in sys.modules
    assert "expected package.module:function" in refused(
        capsys, [*command, "--network", "resnet11"]
    )
    assert "No module named 'nowhere'" in refused(capsys, [*command, "--network", "nowhere:build"])
    assert main.main(["predict", *command, "--network", "net_of_theirs:build"]) == 0
    assert capsys.readouterr().out == "0.png: bright 100.0 %\n"


def test_as_json(monkeypatch, capsys):
    found = [
        predict.Prediction(Path("a.png"), (("cat", 0.75), ("dog", 0.25))),
        predict.Prediction(Path("b\udcff.png"), problem="it is no image"),  # not UTF-8
    ]
    monkeypatch.setattr(predict, "predict_files", lambda *_: iter(found))
    assert main.main(["predict", "model.keras", "a.png", "b.png", "--json"]) == 1
    printed = capsys.readouterr()
    classes = [{"name": "cat", "probability": 0.75}, {"name": "dog", "probability": 0.25}]
    assert [json.loads(line) for line in printed.out.splitlines()] == [
        {"path": "a.png", "classes": classes, "problem": ""},
        {"path": "b\udcff.png", "classes": [], "problem": "it is no image"},
    ]
    printed.out.encode()
    assert printed.err == ""


def test_predictions_that_are_not_finite_are_refused(tmp_path, capsys):
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    network.set_weights([np.full((16, 2), np.nan), np.zeros(2)])
    path = tmp_path / "model.keras"
    network.save(path)
    write_facts(path, FACTS)
    paint(tmp_path / "a.png", 10)
    assert main.main(["predict", str(path), str(tmp_path / "a.png"), "--json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "predicts values that are not finite" in line
