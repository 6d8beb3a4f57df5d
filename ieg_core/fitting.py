# SPDX-License-Identifier: Apache-2.0
"""Training from Python: NumPy arrays and a Keras model in, a trained one and its audit out.

`fit` does what `make sweep` does with one trial: the arrays become a data directory, the trial is
planned and trained in a process of its own, and everything that it leaves lies in its run folder,
for `ieg audit`, `ieg predict`, `ieg report`. The same call again finds the finished run.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ieg_core.audit.findings import Audit, is_available, read_audit
from ieg_core.audit.write import audit_trial
from ieg_core.data.image_folder.arrays import Part, write_arrays
from ieg_core.data.labels.from_python import class_numbers, read_labels
from ieg_core.errors import UserError
from ieg_core.experiment import networks
from ieg_core.experiment.config import LARGEST_IN_MEMORY
from ieg_core.host import files, machine, processes
from ieg_core.recipes.image_folder import paddings
from ieg_core.store import layout
from ieg_core.sweep import plan, slots, worker
from ieg_core.sweep.request import SweepRequest

if TYPE_CHECKING:
    import keras

Data = tuple[ArrayLike, ArrayLike]
_BATCH_SIZE = 100
_LOOK_BACK = 1000


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes:
      model: The trained network, averaged parameters: images in 0 … 255 -> logits [n, C].
      class_names: C names, by class number.
      accuracy: On the test set, in [0, 1]; without a test set, how often the network agrees with
        the given labels of images that it was trained on.
      result: The run's row, as result.json holds it.
      run_dir: The run's folder; `ieg audit`, `ieg predict` and `ieg report` take it.
      data_dir: The folder that the arrays were written to (DATA_DIR).
      audit: The labels to train on by how wrong they look; None for a method that never sees them.
    """

    model: "keras.Model"
    class_names: tuple[str, ...]
    accuracy: float
    result: Mapping[str, Any]
    run_dir: Path
    data_dir: Path
    audit: Audit | None


def fit(
    images: ArrayLike,
    labels: ArrayLike,
    network: "str | keras.Model" = "",
    *,
    method: str = "ieg",
    test: Data | None = None,
    probe: Data | None = None,
    class_names: Sequence[str] | None = None,
    steps: int = 0,
    seed: int = 0,
    settings: Sequence[str] = (),
    out: str | Path = "runs",
) -> Fitted:
    """Trains a network on images whose labels may be wrong.

    Args:
      images: [n, height, width, channels] or [n, height, width]; uint8, or floats in [0, 1].
      labels: [n], class numbers from 0 (integers) or names, none missing.
      network: A Keras model with logits out, taken with its values and left as it is; a network's
        name (`resnet11`, `package.module:function`, `mine.keras`); "" chooses by the images' size.
        A model gets images in [−1, 1].
      method: Name of the method; see `ieg recipes`.
      test: Images and true labels to evaluate on; without it, up to 1,000 of the images to train
        on with their given labels, which shows agreement and no accuracy.
      probe: A few images with labels that are right, at least one of every class. Methods that need
        it draw 10 a class from the images and trust their labels, if it is not given.
      class_names: Names by class number; by default the numbers, or the labels' own names.
      steps: Training steps; 0 for the recipe's 1,500.
      seed: Seed of everything that is drawn.
      settings: Overrides such as "optimizer.learning_rate=0.05".
      out: The results root.

    Returns:
      The trained network, its accuracy and its audit.

    Raises:
      UserError: Anything wrong with arguments or arrays.
      RuntimeError: The training failed; the message says why.
    """
    _require_kinds(network, method, steps, seed, settings)
    parts, names = _parts(images, labels, test, probe, class_names)
    root = Path(out)
    data_dir = write_arrays(root / "data", parts, names)
    shape, count = parts["train"][0].shape[1:], len(parts["train"][1])
    planned = plan.plan(
        SweepRequest(
            dataset="folder",
            methods=(method,),
            seeds=(int(seed),),
            network=network if isinstance(network, str) else str(_saved(network, root / "data")),
            steps=int(steps),
            settings=(*_settings_for(shape, count), *settings),
            data_dir=str(data_dir),
            results=str(root),
        )
    )
    trial = planned.trials[0]
    folder = layout.trial_folder(root, trial)
    if code := _run(trial, root, data_dir):
        failure = files.read_json(folder / "failure.json") or {}
        reason = failure.get("reason", f"see {folder / 'log.txt'}")
        if code == worker.EXIT_USER_ERROR:
            raise UserError(reason)
        raise RuntimeError(f"the training failed: {reason}")
    row = files.read_json(folder / "result.json")
    found = None
    if is_available(folder):
        audit_trial(folder, data_dir)
        found = read_audit(folder, data_dir, 0.5)
    import keras

    if isinstance(network, str) and networks.parse(row["network"]).family == "function":
        from ieg_core.models.user_network import import_module

        import_module(network)  # which registers the layers that it may have of its own
    return Fitted(
        model=keras.saving.load_model(folder / "model.keras", compile=False),
        class_names=names,
        accuracy=row["accuracy_ema_last"],
        result=row,
        run_dir=folder,
        data_dir=data_dir,
        audit=found,
    )


def _require_kinds(
    network: Any, method: object, steps: object, seed: object, settings: object
) -> None:
    """Refuses arguments of a kind that would otherwise be seen late, or misunderstood."""
    is_name = isinstance(network, str)
    if not is_name:
        import keras
    for name, value, fits, expected in (
        ("network", network, is_name or isinstance(network, keras.Model),
         "a Keras model, a network's name, or 'package.module:function'"),
        ("method", method, isinstance(method, str), "a method's name, such as 'ieg'"),
        ("steps", steps, isinstance(steps, int | np.integer), "a whole number"),
        ("seed", seed, isinstance(seed, int | np.integer), "a whole number"),
        ("settings", settings, not isinstance(settings, str),
         "a list such as ['optimizer.learning_rate=0.05']"),
    ):  # fmt: skip
        if not fits:
            received = value.__name__ if isinstance(value, type) else repr(value)[:80]
            raise UserError(f"{name} is {received}: expected {expected}")


def _run(trial: str, root: Path, data_dir: Path) -> int:
    """Runs a trial in processes that end with this one, and with an interruption of it."""
    command = [sys.executable, "-m", "ieg_core.fitting", trial, str(root), str(data_dir)]
    environment = {**os.environ, **processes.children_environment()}
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise


def _parts(
    images: ArrayLike,
    labels: ArrayLike,
    test: Data | None,
    probe: Data | None,
    class_names: Sequence[str] | None,
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Brings all arrays into one form; the classes are those of the labels to train on."""
    pixels, given = _pixels(images), read_labels(labels)
    if len(pixels) == 0 or len(given) != len(pixels):
        raise UserError(
            f"received {len(pixels)} images and {len(given)} labels: expected at least one image "
            "and one label for each"
        )
    if isinstance(class_names, str):
        raise UserError(f"class_names is {class_names!r}: expected a list of names")
    if class_names is not None:
        names = tuple(map(str, class_names))
    elif given.dtype.kind in "iu":
        if int(given.max()) >= given.size:
            raise UserError(
                f"the labels run to {given.max()}, but there are {given.size}: expected class "
                "numbers from 0 without gaps, or names"
            )
        names = tuple(map(str, range(int(given.max()) + 1)))
    else:
        names = tuple(sorted(set(given.tolist())))
    numbers = class_numbers(given, names)
    parts = {"train": (pixels, numbers)}
    if test is None:
        some = np.linspace(0, len(pixels) - 1, min(_LOOK_BACK, len(pixels))).astype(int)
        parts["test"] = (pixels[some], numbers[some])
    for name, data in (("test", test), ("probe", probe)):
        if data is None:
            continue
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise UserError(
                f"{name} is {type(data).__name__}: expected a pair of images and labels, "
                f"{name}=(images, labels)"
            )
        parts[name] = (_pixels(data[0]), class_numbers(read_labels(data[1]), names))
    return parts, names


def _pixels(images: ArrayLike) -> NDArray[np.uint8]:
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise UserError(
            f"the images are no array ({error}): expected all of one size, [n, height, width, "
            "channels] or [n, height, width]"
        ) from error
    if array.ndim not in (3, 4):
        raise UserError(
            f"the images have the shape {array.shape}: expected [n, height, width, channels] or "
            "[n, height, width]"
        )
    if array.ndim == 3:
        array = array[..., None]
    if np.ma.is_masked(images):
        raise UserError("some pixels are masked: expected a value for each; use images.filled(0)")
    if array.dtype.kind == "f" and array.size:
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise UserError(
                f"float images run from {array.min():g} to {array.max():g}: expected [0, 1], or "
                "uint8 from 0 to 255"
            )
        array = np.rint(array * 255).astype(np.uint8)
    return array  # what is wrong else, `check_parts` says


def _settings_for(shape: tuple[int, ...], count: int) -> list[str]:
    """Returns the settings that fit so many images of a shape (height, width, channels)."""
    size = max(shape[:2])
    chosen = [
        f"images.size={size}",
        f"images.channels={shape[2]}",
        f"batch_size={min(_BATCH_SIZE, max(1, count // 2))}",
    ]
    if size > LARGEST_IN_MEMORY:
        # Large files are cropped at random as they are read; arrays, as smaller images, by padding.
        pad, strong_pad = paddings(size)
        chosen += [f"augmentation.pad={pad}", f"augmentation.strong_pad={strong_pad}"]
    return chosen


def _saved(model: "keras.Model", folder: Path) -> Path:
    """Saves a model under a name made of its architecture and values, which a run goes by."""
    from ieg_core.models.user_network import describe

    try:
        config = json.dumps(model.get_config(), default=repr, sort_keys=True)
        digest = hashlib.sha256(config.encode())
        for value in model.get_weights():
            digest.update(np.ascontiguousarray(value).data)
        path = (folder / f"network-{digest.hexdigest()[:12]}.keras").absolute()
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                model.save(Path(temporary) / path.name)
                (Path(temporary) / path.name).replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write the network to {folder} ({error.strerror}): make room or choose another "
            "folder"
        ) from error
    # Which exceptions a layer of somebody's own can cause, Keras does not say.
    except Exception as error:
        raise UserError(
            f"the network cannot be saved ({describe(error)}): expected Keras's own layers; put a "
            "function that builds it into a module and say network='module:function'"
        ) from error
    return path


def main(trial: str, root: str, data_dir: str) -> int:
    """Runs in the process that `fit` starts."""
    share = slots.Slot(machine.usable_cores(), machine.find_gpus("auto"))
    for step in ("train", "evaluate"):
        code = worker.run_step(step, trial, Path(root), Path(data_dir), slot=share, echo=False)
        if code:
            return abs(code)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
