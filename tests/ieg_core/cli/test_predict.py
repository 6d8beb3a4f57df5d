# SPDX-License-Identifier: Apache-2.0
"""An exported model: what goes with it, what it says of files, and that Keras alone can use it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ieg_core.cli import main
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.store.model_file import read_facts
from ieg_core.sweep import worker
from tests.backends import run_on

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
