# SPDX-License-Identifier: Apache-2.0
"""`ieg predict MODEL IMAGES...`: classifies image files with an exported model."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
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
from ieg_core.errors import UserError, printable, require
from ieg_core.experiment.networks import parse
from ieg_core.host.archives import require_sane_size
from ieg_core.host.runtime import Runtime, held_stderr, set_environment
from ieg_core.store.layout import MODEL, find_run
from ieg_core.store.model_file import MEMBER, ModelFacts, read_facts
from ieg_core.sweep import worker

BATCH = 64
TOP = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg predict`."""
    parser.add_argument("model", type=Path, help=f"a run, runs/trials/…, or a file such as {MODEL}")
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="files, or folders of them"
    )
    parser.add_argument("--top", type=int, default=TOP, help=f"classes per image ({TOP})")
    options.add_json(parser, "one JSON object a line for each image: path, classes, problem")
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
    """
    require(arguments.top >= 1, "--top", arguments.top, "at least 1")
    model = arguments.model
    if not model.is_file() and (folder := find_run(model)).is_dir():
        model = folder / MODEL
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
    return worker.EXIT_FAILED if unreadable else 0


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
    """Classifies image files: the softmax of the logits of the averaged parameters.

    Holds one batch of images in memory at a time.

    Args:
      model: An exported `.keras` file.
      paths: JPEG, PNG or WebP files; a folder stands for all files in it.
      top: Classes per image.
      network: `package.module:function`; its module is imported for the layers that it registers.
        It is never read from the model file, which could then run any code.

    Yields:
      One prediction per file, in order.

    Raises:
      UserError: When the model cannot be read or does not take square images.
    """
    facts = read_facts(model)
    if network and parse(network).family != "function":
        raise UserError(
            f"--network {network}: expected package.module:function, such as my_layers:build"
        )
    if facts.image_shape[0] != facts.image_shape[1]:
        raise UserError(
            f"{model} takes images of {facts.image_shape[0]}×{facts.image_shape[1]} pixels: "
            "expected square images, since files are cropped to squares; use the model from Keras"
        )
    files = [file for path in paths for file in _files(path)]
    loaded = None
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        images_or_problems = [_read(file, facts) for file in batch]
        images = [image for image in images_or_problems if not isinstance(image, str)]
        if images and loaded is None:
            loaded = _load(model, facts, network)
        classes = iter(_classes(loaded, np.stack(images), facts, top) if images else ())
        for file, image in zip(batch, images_or_problems, strict=True):
            if isinstance(image, str):
                yield Prediction(file, problem=image)
            else:
                yield Prediction(file, next(classes))


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
    require_sane_size(model)
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


def _classes(
    network: Any, images: np.ndarray, facts: ModelFacts, top: int
) -> Iterator[tuple[tuple[str, float], ...]]:
    """Yields the likeliest classes of each image, uint8 [n, H, W, channels]."""
    logits = np.asarray(network(images.astype(np.float32), training=False), np.float64)
    for row in softmax(logits, axis=1):
        best = np.argsort(-row, kind="stable")[:top]
        yield tuple((facts.class_names[number], float(row[number])) for number in best)


def _read(path: Path, facts: ModelFacts) -> np.ndarray | str:
    """Returns an image, uint8 [H, W, channels], or why it cannot be read."""
    height, _, channels = facts.image_shape
    box = evaluated_square if facts.preprocessing == "crop" else central_square
    try:
        return read_pixels(read_file(path), height, box, channels=channels)
    except (UnreadableImageError, OSError) as error:
        return getattr(error, "strerror", None) or str(error)
