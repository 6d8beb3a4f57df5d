# SPDX-License-Identifier: Apache-2.0
"""`ieg predict`: the classes of image files, by an exported model."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from ieg_core.data.image_folder.cache import read_file
from ieg_core.data.image_folder.decode import (
    UnreadableImageError,
    central_square,
    evaluated_square,
    read_pixels,
)
from ieg_core.errors import UserError
from ieg_core.experiment.networks import parse
from ieg_core.host.runtime import Runtime, held_stderr, set_environment
from ieg_core.store.model_file import MEMBER, ModelFacts, read_facts

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file.

    Attributes:
      path: The file.
      classes: (name, probability), the likeliest first; empty if it cannot be read.
      problem: Why it cannot be read, else "".
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    problem: str = ""


def predict_files(
    model: Path, paths: Sequence[Path], top: int = 3, network: str = ""
) -> Iterator[Prediction]:
    """Predicts the classes of image files: softmax of the logits of the averaged parameters.

    No more images are held at once than a batch has.

    Args:
      model: An exported `.keras` file.
      paths: JPEG, PNG or WebP files; a folder stands for all files in it.
      top: How many classes to tell of each.
      network: `package.module:function`, whose module is imported for the layers that it registers.
        Never taken from the file: whoever wrote that would choose what runs here.

    Yields:
      One prediction a file, in order.

    Raises:
      UserError: The model cannot be read, or is not one for image files.
    """
    facts = read_facts(model)
    if network and parse(network).family != "function":
        raise UserError(f"--network {network} is no package.module:function")
    if facts.image_shape[0] != facts.image_shape[1]:
        raise UserError(
            f"{model} takes images of {facts.image_shape[0]}×{facts.image_shape[1]} pixels: "
            "expected one for squares, to which files are brought; load it by Keras"
        )
    files = [file for path in paths for file in _files(path)]
    loaded = None
    for start in range(0, len(files), BATCH):
        part = [_read(file, facts) for file in files[start : start + BATCH]]
        images = [image for image in part if not isinstance(image, str)]
        if images and loaded is None:
            loaded = _load(model, facts, network)
        found = iter(_classes(loaded, np.stack(images), facts, top) if images else ())
        for file, image in zip(files[start : start + BATCH], part, strict=True):
            if isinstance(image, str):
                yield Prediction(file, problem=image)
            else:
                yield Prediction(file, next(found))


def _files(path: Path) -> Iterator[Path]:
    """Yields a file, or the files of a folder and of those in it, hidden ones left out."""
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

        keras.ops.zeros(1)  # the first operation starts the framework
    from ieg_core.models import user_network

    if network:
        user_network.import_module(network)
    try:
        loaded = keras.models.load_model(model, compile=False)
    # Which exceptions an archive of another version can cause, Keras does not say.
    except Exception as error:
        mend = "export it again"
        if "Could not locate" in str(error):
            name = facts.network if ":" in facts.network else "package.module:function"
            mend += f"; layers of your own are found by --network {name}, which imports that module"
        raise UserError(
            f"the model {model} cannot be loaded ({user_network.describe(error)}): expected one "
            "that this "
            f"version of Keras reads; {mend}"
        ) from error
    shapes = (None, *facts.image_shape), (None, len(facts.class_names))
    if (tuple(loaded.input_shape), tuple(loaded.output_shape)) != shapes:
        raise UserError(
            f"the model {model} goes from {loaded.input_shape} to {loaded.output_shape}, but its "
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
    """Returns an image, uint8 [H, W, channels], or why there is none."""
    height, _, channels = facts.image_shape
    box = evaluated_square if facts.preprocessing == "crop" else central_square
    try:
        return read_pixels(read_file(path), height, box, channels=channels)
    except (UnreadableImageError, OSError) as error:
        return getattr(error, "strerror", None) or str(error)
