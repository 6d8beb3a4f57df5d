# SPDX-License-Identifier: Apache-2.0
"""Training from Python: NumPy arrays and a Keras model in, a trained model and its audit out.

`fit` does what `make sweep` does with one trial: it writes the arrays to a data directory, then
plans and trains the trial in a separate process. The run folder holds all results, for `ieg audit`,
`ieg predict` and `ieg report`. Repeating the same call reuses the finished run. With the name of a
pre-trained network, or of a few photos by default, it trains a classifier on features instead, in
this process.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ieg_core.audit.findings import THRESHOLD, Audit, is_available, read_audit
from ieg_core.audit.from_python import is_matrix, open_python
from ieg_core.audit.inputs import list_images
from ieg_core.audit.write import audit_trial
from ieg_core.data.image_folder.arrays import Part, write_arrays
from ieg_core.data.image_folder.listing import PROBE, TEST, is_split, list_files
from ieg_core.data.labels.from_python import class_numbers, read_labels
from ieg_core.errors import EXIT_USER_ERROR, UserError, printable
from ieg_core.experiment import networks
from ieg_core.experiment.config import LARGEST_IN_MEMORY
from ieg_core.experiment.feature_sources import SIZE
from ieg_core.experiment.methods import METHODS
from ieg_core.feature_fitting import (
    GIVEN,
    METHOD,
    FeatureFitted,
    fit_on_features,
    is_of_features,
)
from ieg_core.features.extract import NETWORK
from ieg_core.features.network import find_network
from ieg_core.host import machine, processes
from ieg_core.host.files import expand, replacing
from ieg_core.host.progress import ProgressLine
from ieg_core.recipes.image_folder import paddings
from ieg_core.store import layout
from ieg_core.store.layout import LOG, MODEL, read_result
from ieg_core.store.model_file import read_facts
from ieg_core.store.names import DEFAULT_ROOT
from ieg_core.store.records import FailureRecord
from ieg_core.sweep import plan, progress, slots, worker
from ieg_core.sweep.request import SweepRequest

if TYPE_CHECKING:
    import keras

Data = tuple[Any, Any]
_DEFAULT_METHOD = "ieg"
FEW: Final = 10_000
"""Images, below which a classifier on features is the default."""
TINY: Final = 16
"""Pixels of the longer side, up to which images show too little for pre-trained features."""
_LOOK_SECONDS = 0.5
_AGREEMENT_SAMPLE = 1000


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes:
      model: The trained network, averaged parameters: images in 0 … 255 -> logits [n, C].
      class_names: C names, by class number.
      accuracy: Accuracy on the test set, in [0, 1]; without a test set, agreement with the given
        labels of images that it was trained on or, of a folder, that were held out.
      result: The run's row, the content of result.json.
      run_dir: The run's folder, an argument of `ieg audit`, `ieg predict` and `ieg report`.
      data_dir: The folder that the arrays were written to (DATA_DIR).
      audit: The training labels, most suspicious first, with `suspects()` and `to_frame()`; None
        for a method that does not use them.
    """

    model: "keras.Model"
    class_names: tuple[str, ...]
    accuracy: float
    result: Mapping[str, Any]
    run_dir: Path
    data_dir: Path
    audit: Audit | None

    def __repr__(self) -> str:
        row = self.result
        title = (
            f"{row['method']} on {row['network']}, {row['steps']:,} steps, "
            f"accuracy {self.accuracy:.1%}"
        )
        audit = [] if self.audit is None else [repr(self.audit)]
        return "\n".join([title, f"Run: {self.run_dir}", *audit])


def fit(
    images: Any,
    labels: Any = None,
    network: "str | keras.Model" = "",
    *,
    method: str = "",
    test: Data | None = None,
    probe: Data | None = None,
    class_names: Sequence[str] | None = None,
    steps: int = 0,
    seed: int = 0,
    settings: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path = DEFAULT_ROOT,
) -> Fitted | FeatureFitted:
    """Trains a network on images whose labels may be wrong.

    With fewer than `FEW` images it trains a classifier on the features of a pre-trained network,
    unless `network`, `method`, `steps` or `settings` are given or the images are `TINY`.

    Trusted labels: those of the `probe`, if there is one. Without it, a classifier on features
    trusts none, nor do `forward`, `fsr`, `mixup` and `supervised`; `ieg`, the default method when
    training from scratch, draws 10 images per class from `images` and trusts their labels. A
    printed line says so.

    Args:
      images: [n, height, width, channels] or [n, height, width]; uint8, or floats in [0, 1]. Or
        data of another kind that `ieg_core.audit` takes, if the images have one size or `network`
        is a pre-trained one; features [n, D], on which a classifier is trained; or a folder as
        `make sweep DATASET=folder` takes it.
      labels: [n], class numbers from 0 (integers) or names, none missing. By default those of
        `images`, if these come with labels; or the name of their column.
      network: A Keras model that returns logits, trained from its current weights and not modified;
        or the name of a network (`resnet11`, `package.module:function`, `mine.keras`); "" chooses
        by image size. The network receives images in [−1, 1]. "efficientnet-lite0" or
        "efficientnet-lite2" trains a classifier on the features of that pre-trained network.
      method: Name of the method; see `ieg recipes`. By default "ieg"; on features "retrain", the
        only one there.
      test: Images and true labels to evaluate on. Without it, training images with their given
        labels are used (from scratch, 1,000 at most), which measures agreement, not accuracy. A
        folder has its own in test/; without test/, training from scratch holds out a fifth of each
        class.
      probe: A few images with correct labels, at least one per class. Without it, methods that need
        a probe draw 10 images per class from `images` and trust their labels.
      class_names: Names by class number; by default the numbers, or the names among the labels.
      steps: Training steps; 0 for the recipe's 1,500, but at most 100 epochs.
      seed: Seed of all random draws.
      settings: Overrides such as "optimizer.learning_rate=0.05", or a dictionary,
        {"optimizer.learning_rate": 0.05} or {"optimizer": {"learning_rate": 0.05}}. On features,
        fields of `ieg_core.features.head.HeadSettings`.
      out: The results root; nothing is written there on features.

    Returns:
      The trained network, its accuracy and its audit; on features a `FeatureFitted`, whose
      `predict` takes images.

    Raises:
      UserError: When an argument or array is invalid.
      RuntimeError: When the training fails; the message says why.
    """
    _require_kinds(network, method, steps, seed, settings)
    assignments = setting_texts(settings)
    is_open = network == "" and not (method or steps or assignments) and not is_matrix(images)
    if is_open and _suit_features(images):
        network = NETWORK
    if is_matrix(images):
        if network:
            raise UserError(
                f"received features {np.shape(images)} and network {network!r}: expected images "
                "for a network; leave one of the two out"
            )
        network = GIVEN
    if isinstance(network, str) and (network == GIVEN or is_of_features(network)):
        return _fit_on_features(
            images, labels, network, method, test, probe, class_names, steps, seed, assignments
        )
    method = method or _DEFAULT_METHOD
    root = expand(out)
    indices: Sequence[Any] | None = None
    if isinstance(images, str | Path):
        data_dir, names, chosen = _folder(expand(images), labels, test, probe, class_names)
        _say_what_is_trusted(method, probe is not None or (data_dir / PROBE).is_dir())
    else:
        pixels, given, known, indices = _held(images, labels, class_names)
        parts, names = _parts(pixels, given, test, probe, known)
        data_dir = write_arrays(root / "data", parts, names)
        chosen = _settings_for(parts["train"][0].shape[1:])
        _say_what_is_trusted(method, probe is not None)
        if test is None:
            print("fit: no test=, so accuracy means agreement with labels that it is trained on")
    planned = plan.plan(
        SweepRequest(
            dataset="folder",
            methods=(method,),
            seeds=(int(seed),),
            network=network if isinstance(network, str) else str(_saved(network, root / "data")),
            steps=int(steps),
            settings=(*chosen, *assignments),
            accelerator=bool(machine.find_gpus("auto")),
            data_dir=str(data_dir),
            results=str(root),
        )
    )
    for note in planned.notes:
        print(f"fit: {note}")
    trial = planned.trials[0]
    folder = layout.trial_folder(root, trial)
    if code := _run(trial, root, data_dir):
        failure, _ = FailureRecord.look(folder)
        reason = failure.reason if failure else f"see {folder / LOG}"
        if code == EXIT_USER_ERROR:
            raise UserError(reason)
        raise RuntimeError(f"the training failed: {reason}")
    result = read_result(root, trial)
    audit = None
    if is_available(folder):
        audit_trial(folder, data_dir)
        audit = replace(read_audit(folder, data_dir, THRESHOLD), indices=indices)
    import keras

    if isinstance(network, str) and networks.parse(result.network).family == "function":
        from ieg_core.models.user_network import import_module

        import_module(network)  # registers the network's custom layers
    read_facts(folder / MODEL)  # checks its digest
    return Fitted(
        model=keras.saving.load_model(folder / MODEL, compile=False),
        class_names=names,
        accuracy=result.accuracy_ema_last,
        result=result.to_value(),
        run_dir=folder,
        data_dir=data_dir,
        audit=audit,
    )


def setting_texts(settings: Sequence[str] | Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns settings as "key=value" each: {"optimizer": {"nesterov": True}}, flat or nested.

    Args:
      settings: A dictionary, or a list of "key=value".
      prefix: What stands before each key.

    Raises:
      UserError: When an item of a list is not a text.
    """
    if not isinstance(settings, Mapping):
        if unequal := [each for each in settings if not isinstance(each, str)]:
            raise UserError(
                f"settings has {unequal[0]!r}: expected texts such as "
                "'optimizer.learning_rate=0.05', or a dictionary"
            )
        return list(settings)
    texts = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            texts += setting_texts(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            texts.append(f"{prefix}{key}={','.join(map(str, value))}")
        else:
            texts.append(f"{prefix}{key}={value}")
    return texts


def _fit_on_features(
    images: Any,
    labels: Any,
    network: str,
    method: str,
    test: Data | None,
    probe: Data | None,
    class_names: Sequence[str] | None,
    steps: int,
    seed: int,
    assignments: Sequence[str],
) -> FeatureFitted:
    if method not in ("", METHOD):
        raise UserError(
            f"received method {method!r} and network {network!r}: expected method={METHOD!r} on "
            "features; leave one of them out"
        )
    if steps:
        raise UserError(
            f"received steps={steps} and network {network!r}: a classifier on features counts "
            "epochs; pass settings={'epochs': …}"
        )
    if unequal := [text for text in assignments if "=" not in text]:
        raise UserError(f"expected key=value, got {unequal[0]!r}")
    for name, data in (("test", test), ("probe", probe)):
        _require_pair(name, data)
    has_probe = probe is not None
    if isinstance(images, str | Path) and expand(images).is_dir():
        folder = expand(images)
        has_probe |= is_split(folder, PROBE)
        if test is None and is_split(folder, TEST):
            listing = list_files(folder, needs_test=False)
            files = listing.parts[TEST]
            truth = [listing.class_names[file.label] for file in files]
            test = [folder / file.path for file in files], truth
    print(f"fit: {METHOD} trusts {'the labels of the probe' if has_probe else 'no label'}")
    if test is None:
        print("fit: no test=, so accuracy means agreement with labels that it is trained on")
    return fit_on_features(
        images,
        labels,
        network,
        test=test,
        probe=probe,
        class_names=class_names,
        seed=int(seed),
        settings=dict(text.split("=", 1) for text in assignments),
    )


def _suit_features(images: Any) -> bool:
    """Returns whether images are few, and large enough for pre-trained features; says so."""
    if isinstance(images, str | Path):
        trusted, first = list_images(expand(images)).trusted, None
        count = sum(each is None for each in trusted)  # without the probe
    elif hasattr(images, "__len__") and not hasattr(images, "as_numpy_iterator"):
        count = len(images)
        is_plain = isinstance(images, np.ndarray | list | tuple)
        first = images[0] if is_plain and count else None
    else:
        return False  # a tf.data.Dataset, whose length counts batches
    if not 0 < count < FEW or max(getattr(first, "shape", ())[:2], default=FEW) <= TINY:
        return False
    try:
        find_network(NETWORK).require_installed()
    except UserError as error:
        print(f"fit: no classifier on features ({error})")
        return False
    print(
        f"fit: {count:,} images are too few to train from scratch: training a classifier on "
        f"features of {NETWORK}; method='{_DEFAULT_METHOD}' trains from scratch"
    )
    return True


def _folder(
    folder: Path,
    labels: Any,
    test: Data | None,
    probe: Data | None,
    class_names: Sequence[str] | None,
) -> tuple[Path, tuple[str, ...], list[str]]:
    """Returns a data directory as it is, its classes, and no settings."""
    others = {"labels": labels, "test": test, "probe": probe, "class_names": class_names}
    if given := [name for name, value in others.items() if value is not None]:
        raise UserError(
            f"received the folder {folder} and {given[0]}: expected all of it in the folder, as "
            "train/, test/ and probe/"
        )
    return folder, list_files(folder, needs_test=False).class_names, []


def _held(
    images: Any, labels: Any, class_names: Sequence[str] | None
) -> tuple[Any, Any, Sequence[str] | None, Sequence[Any] | None]:
    """Returns images as an array, labels, and class names and the caller's indices, if any."""
    is_array = isinstance(images, np.ndarray) and images.dtype.kind not in "USO"
    is_list = isinstance(images, list | tuple)
    is_plain = is_list and len(images) and not isinstance(images[0], str | Path | tuple)
    if labels is not None and (is_array or is_plain or images is None):
        return images, labels, class_names, None
    opened = open_python(images, labels, size=SIZE, class_names=class_names, progress=True)
    labeled = opened.images
    if labeled.read is None or labeled.labels.shape[1] != 1 or (labeled.labels < 0).any():
        raise UserError(
            "fit needs one label for each image: audit several annotators or missing labels, or "
            f"pass network={NETWORK!r}"
        )
    pixels = [labeled.read(place) for place in range(len(labeled))]
    shapes = {each.shape for each in pixels}
    if len(shapes) > 1:
        raise UserError(
            f"the images have {len(shapes)} sizes: expected one; resize them, pass a data "
            f"directory, or network={NETWORK!r}, which takes any"
        )
    return np.stack(pixels), labeled.labels[:, 0], labeled.class_names, labeled.indices


def _say_what_is_trusted(method: str, has_probe: bool) -> None:
    spec = METHODS.get(method)
    if spec is None:
        return  # planning refuses it
    if spec.uses_probe and has_probe:
        text = "trusts the labels of the probe"
    elif spec.uses_probe:
        text = (
            "draws 10 images per class from yours and trusts their labels; if these may be wrong, "
            "pass probe= or method='forward'"
        )
    elif has_probe:
        text = "trusts no label, and does not use the probe"
    else:
        text = "trusts no label"
    print(printable(f"fit: {method} {text}"))


def _require_pair(name: str, data: Any) -> None:
    if data is not None and (not isinstance(data, tuple | list) or len(data) != 2):
        raise UserError(
            f"{name} is {type(data).__name__}: expected a pair of images and labels, "
            f"{name}=(images, labels)"
        )


def _require_kinds(
    network: Any, method: object, steps: object, seed: object, settings: object
) -> None:
    """Refuses arguments of a wrong type that would fail late or be misread."""
    is_name = isinstance(network, str)
    if not is_name:
        import keras
    for name, value, fits, expected in (
        ("network", network, is_name or isinstance(network, keras.Model),
         "a Keras model, a network's name, or 'package.module:function'"),
        ("method", method, isinstance(method, str), "a method's name, such as 'ieg'"),
        ("steps", steps, isinstance(steps, int | np.integer), "a whole number"),
        ("seed", seed, isinstance(seed, int | np.integer), "a whole number"),
        ("settings", settings, isinstance(settings, Mapping | Sequence)
         and not isinstance(settings, str),
         "a list such as ['optimizer.learning_rate=0.05'], or a dictionary"),
    ):  # fmt: skip
        if not fits:
            received = value.__name__ if isinstance(value, type) else repr(value)[:80]
            raise UserError(f"{name} is {received}: expected {expected}")


def _run(trial: str, root: Path, data_dir: Path) -> int:
    """Runs a trial in processes that end when this one ends or is interrupted; shows its steps."""
    command = [sys.executable, "-m", "ieg_core.fitting", trial, str(root), str(data_dir)]
    environment = {**os.environ, **processes.children_environment()}
    line, began = ProgressLine("fit", "steps"), time.time()
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    return process.wait(_LOOK_SECONDS)
                except subprocess.TimeoutExpired:
                    trial_progress = progress.read_trial(root, trial, began)
                if trial_progress.state == "training" and trial_progress.num_steps:
                    line(
                        trial_progress.step,
                        trial_progress.num_steps,
                        trial_progress.steps_per_second,
                    )
        except BaseException:
            process.terminate()
            raise
        finally:
            line.close()


def _parts(
    images: ArrayLike,
    labels: ArrayLike,
    test: Data | None,
    probe: Data | None,
    class_names: Sequence[str] | None,
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Normalizes all arrays; the classes are those of the training labels."""
    pixels, given = _pixels(images), read_labels(labels)
    if len(pixels) == 0 or len(given) != len(pixels):
        raise UserError(
            f"received {len(pixels)} images and {len(given)} labels: expected at least one image, "
            "and one label per image"
        )
    if isinstance(class_names, str):
        raise UserError(f"class_names is {class_names!r}: expected a list of names")
    if class_names is not None:
        names = tuple(map(str, class_names))
    elif given.dtype.kind in "iu":
        if int(given.max()) >= given.size:
            raise UserError(
                f"the largest label is {given.max()}, but there are only {given.size} labels: "
                "expected class numbers from 0 without gaps, or names"
            )
        names = tuple(map(str, range(int(given.max()) + 1)))
    else:
        names = tuple(sorted(set(given.tolist())))
    numbers = class_numbers(given, names)
    parts = {"train": (pixels, numbers)}
    if test is None:
        sample = np.linspace(0, len(pixels) - 1, min(_AGREEMENT_SAMPLE, len(pixels))).astype(int)
        parts["test"] = (pixels[sample], numbers[sample])
    for name, data in (("test", test), ("probe", probe)):
        if data is None:
            continue
        _require_pair(name, data)
        parts[name] = (_pixels(data[0]), class_numbers(read_labels(data[1]), names))
    return parts, names


def _pixels(images: ArrayLike) -> NDArray[np.uint8]:
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise UserError(
            "the images do not form an array: expected images of one size, [n, height, width, "
            f"channels] or [n, height, width]; network={NETWORK!r} takes any size"
        ) from error
    if array.ndim not in (3, 4):
        raise UserError(
            f"the images have shape {array.shape}: expected [n, height, width, channels] or "
            "[n, height, width]"
        )
    if array.ndim == 3:
        array = array[..., None]
    if np.ma.is_masked(images):
        raise UserError("some pixels are masked: expected a value for each; pass images.filled(0)")
    if array.dtype.kind == "f" and array.size:
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise UserError(
                f"float images range from {array.min():g} to {array.max():g}: expected [0, 1], or "
                "uint8 from 0 to 255"
            )
        array = np.rint(array * 255).astype(np.uint8)
    return array  # `check_parts` checks the rest


def _settings_for(shape: tuple[int, ...]) -> list[str]:
    """Returns the settings for training images of shape (height, width, channels)."""
    size = max(shape[:2])
    chosen = [f"images.size={size}", f"images.channels={shape[2]}"]
    if size > LARGEST_IN_MEMORY:
        # Large files are cropped at random while reading; arrays are padded and cropped instead.
        pad, strong_pad = paddings(size)
        chosen += [f"augmentation.pad={pad}", f"augmentation.strong_pad={strong_pad}"]
    return chosen


def _saved(model: "keras.Model", folder: Path) -> Path:
    """Saves a model under a digest of its architecture and weights, which identifies the run."""
    from ieg_core.models.user_network import describe

    try:
        config = json.dumps(model.get_config(), default=repr, sort_keys=True)
        digest = hashlib.sha256(config.encode())
        for value in model.get_weights():
            digest.update(np.ascontiguousarray(value).data)
        path = (folder / f"network-{digest.hexdigest()[:12]}.keras").absolute()
        if not path.exists():
            with replacing(path) as temporary:
                model.save(temporary)
    except OSError as error:
        raise UserError(
            f"cannot write the network to {folder} ({error.strerror}): expected a writable folder "
            "with free space; free some space or choose another folder"
        ) from error
    # Keras does not document which exceptions a custom layer can cause.
    except Exception as error:
        raise UserError(
            f"the network cannot be saved ({describe(error)}): expected built-in Keras layers; "
            "put a function that builds it into a module and pass network='module:function'"
        ) from error
    return path


def main(trial: str, root: str, data_dir: str) -> int:
    """Trains and evaluates a trial, in the process that `fit` starts.

    Args:
      trial: The trial's name.
      root: The results root.
      data_dir: The data directory.

    Returns:
      The exit code; 0 when both steps succeed.
    """
    slot = slots.whole_machine(machine.find_gpus("auto"))
    for step in ("train", "evaluate"):
        code = worker.run_step(step, trial, Path(root), Path(data_dir), slot=slot, echo=False)
        if code:
            return abs(code)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
