# SPDX-License-Identifier: Apache-2.0
"""`ieg predict MODEL IMAGES...`: classifies image files with a trained network or head."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from ieg_core.cli import options
from ieg_core.data.image_folder.cache import read_file
from ieg_core.data.image_folder.decode import (
    UnreadableImageError,
    central_square,
    evaluated_square,
    read_pixels,
)
from ieg_core.data.image_folder.squares import decode_square
from ieg_core.errors import EXIT_FAILED, UserError, printable, require
from ieg_core.experiment.networks import parse
from ieg_core.features.classifier import FeatureClassifier
from ieg_core.features.extract import compute_features
from ieg_core.host.machine import usable_cores
from ieg_core.host.runtime import Runtime, held_stderr, set_environment
from ieg_core.store.layout import HEAD, MODEL, TRIAL_EXAMPLE, find_run
from ieg_core.store.model_file import MEMBER, ModelFacts, read_facts

BATCH = 64
TOP = 3
_HEAD_SUFFIX = Path(HEAD).suffix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg predict`."""
    parser.add_argument(
        "model", type=Path, help=f"a trial, {TRIAL_EXAMPLE}, or a file such as {MODEL} or {HEAD}"
    )
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="files, or folders of them"
    )
    parser.add_argument("--top", type=int, default=TOP, help=f"classes per image ({TOP})")
    options.add_json(parser, "one JSON object per line and image: path, classes, problem")
    parser.add_argument(
        "--network",
        default="",
        metavar="MODULE:FUNCTION",
        help="import this module first, for a network with layers of your own",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints one line per image: the likeliest classes with their probabilities.

    With --json, each line is {"path": …, "classes": [{"name", "probability"}, …], "problem": …}, in
    the order of the images; `problem` says why a file cannot be read, else it is "".

    Raises:
      UserError: When there are no files, or the model cannot be used (`predict_files`).
    """
    require(arguments.top >= 1, "--top", arguments.top, "at least 1")
    model = arguments.model
    if not model.is_file() and (folder := find_run(model)).is_dir():
        model = folder / (HEAD if (folder / HEAD).is_file() else MODEL)
    unreadable = classified = 0
    for prediction in predict_files(model, arguments.images, arguments.top, arguments.network):
        name = printable(str(prediction.path))
        unreadable += bool(prediction.problem)
        classified += not prediction.problem
        if arguments.json:
            classes = [{"name": label, "probability": p} for label, p in prediction.classes]
            options.print_json({**vars(prediction), "classes": classes})
            continue
        if prediction.problem:
            print(f"ieg: {name} cannot be read: {prediction.problem}", file=sys.stderr)
            continue
        shown = ", ".join(f"{label} {100 * p:.1f} %" for label, p in prediction.classes)
        print(f"{name}: {printable(shown)}")
    if not unreadable + classified:
        places = ", ".join(map(str, arguments.images))
        raise UserError(f"no files in {places}: expected JPEG, PNG or WebP files")
    return EXIT_FAILED if unreadable else 0


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    Attributes:
      path: The file.
      classes: (name, probability), the likeliest first; empty if the file cannot be read.
      problem: Why the file cannot be read, else "".
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    problem: str = ""


def predict_files(
    model: Path, paths: Sequence[Path], top: int = TOP, network: str = ""
) -> Iterator[Prediction]:
    """Classifies image files with the averaged parameters of a network, or with a head on features.

    Holds one batch of images in memory at a time.

    Args:
      model: An exported `.keras` file, or the `.safetensors` file of a head.
      paths: JPEG, PNG or WebP files; a folder stands for all files in it.
      top: Classes per image.
      network: `package.module:function`; its module is imported for the layers that it registers.
        It is never read from the model file, which could then run any code.

    Yields:
      One prediction per file, in order.

    Raises:
      UserError: When the model cannot be read or does not take square images, or the networks of a
        head's features are not installed or not the same.
    """
    if network and parse(network).family != "function":
        raise UserError(
            f"--network {network}: expected package.module:function, such as my_layers:build"
        )
    used = _Head(model) if model.suffix == _HEAD_SUFFIX else _Exported(model, network)
    files = [file for path in paths for file in _files(path)]
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        images_or_problems = [_read(file, used.decode) for file in batch]
        images = [image for image in images_or_problems if not isinstance(image, str)]
        rows = iter(_require_finite(used.predict(images), model) if images else ())
        for file, image in zip(batch, images_or_problems, strict=True):
            if isinstance(image, str):
                yield Prediction(file, problem=image)
            else:
                yield Prediction(file, _likeliest(next(rows), used.class_names, top))


def _require_finite(predicted: np.ndarray, model: Path) -> np.ndarray:
    if not np.isfinite(predicted).all():
        raise UserError(
            f"{model} predicts values that are not finite: expected probabilities; its training "
            "diverged or its weights were edited, so train it again"
        )
    return predicted


class _Exported:
    """An exported network, loaded with the first image."""

    def __init__(self, path: Path, network: str) -> None:
        self._path, self._network = path, network
        self._model: Any = None
        self._facts = facts = read_facts(path)
        self.class_names = facts.class_names
        if facts.image_shape[0] != facts.image_shape[1]:
            raise UserError(
                f"{path} takes images of {facts.image_shape[0]}×{facts.image_shape[1]} pixels: "
                "expected square images, since files are cropped to squares; use the model from "
                "Keras"
            )

    def decode(self, content: bytes) -> np.ndarray:
        height, _, channels = self._facts.image_shape
        box = evaluated_square if self._facts.preprocessing == "crop" else central_square
        return read_pixels(content, height, box, channels=channels)

    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        if self._model is None:
            self._model = _load(self._path, self._facts, self._network)
        batch = np.stack(images).astype(np.float32)
        return softmax(np.asarray(self._model(batch, training=False), np.float64), axis=1)


class _Head:
    """A head on features, which are computed of squares of each network's size."""

    def __init__(self, path: Path) -> None:
        self._classifier = FeatureClassifier.read(path)
        self.class_names = self._classifier.class_names
        set_environment(Runtime(threads=usable_cores()))
        self._networks = self._classifier.networks()

    def decode(self, content: bytes) -> Sequence[np.ndarray]:
        return [decode_square(content, network.size) for network in self._networks]

    def predict(self, images: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        features = [
            compute_features(network, np.stack([squares[number] for squares in images]))
            for number, network in enumerate(self._networks)
        ]
        return self._classifier.predict(features)


def _files(path: Path) -> Iterator[Path]:
    """Yields a file, or the files under a folder except hidden ones."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (Path(folder, name) for name in sorted(names) if name[0] != ".")


def _load(model: Path, facts: ModelFacts, network: str) -> Any:
    set_environment(Runtime(threads=1))
    with held_stderr():
        import keras

        from ieg_core import backend  # noqa: F401 - undoes the user's keras.json

        keras.ops.zeros(1)  # the first operation starts the framework
    from ieg_core.models import user_network

    if network:
        user_network.import_module(network)
    try:
        loaded = keras.models.load_model(model, compile=False)
    # Keras does not document which exceptions an archive of another version raises.
    except Exception as error:
        fix = "export it again"
        if "Could not locate" in str(error):
            name = facts.network if ":" in facts.network else "package.module:function"
            fix += f"; for layers of your own, give --network {name}, which imports that module"
        raise UserError(
            f"the model {model} cannot be loaded ({user_network.describe(error)}): expected one "
            f"that this version of Keras can read; {fix}"
        ) from error
    shapes = (None, *facts.image_shape), (None, len(facts.class_names))
    if (tuple(loaded.input_shape), tuple(loaded.output_shape)) != shapes:
        raise UserError(
            f"the model {model} maps {loaded.input_shape} to {loaded.output_shape}, but its "
            f"{MEMBER} has {len(facts.class_names)} class names and images of "
            f"{'×'.join(map(str, facts.image_shape))}: export it again"
        )
    return loaded


def _likeliest(
    probabilities: np.ndarray, class_names: Sequence[str], top: int
) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-probabilities, kind="stable")[:top]
    return tuple((class_names[number], float(probabilities[number])) for number in best)


def _read(path: Path, decode: Callable[[bytes], Any]) -> Any:
    """Returns what `decode` makes of a file, or why the file cannot be read."""
    try:
        return decode(read_file(path))
    except (UnreadableImageError, OSError) as error:
        return getattr(error, "strerror", None) or str(error)
