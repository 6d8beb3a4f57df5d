# SPDX-License-Identifier: Apache-2.0
"""Networks that compute features: built in, from a Keras or ONNX file, or of keras.applications.

What a network receives, and what is taken from what it returns:

    built-in             pixels in [0, 255]; it scales them itself
    .keras               pixels in [0, 255], float32 [B, H, W, 3]
    keras.applications   pixels in [0, 255], through the network's own `preprocess_input`
    .onnx                channels last: pixels in [0, 255]; channels first, as PyTorch exports them:
                         (x / 255 − mean) / deviation of ImageNet's colors, float32 [B, 3, H, W]

An output [B, …, D] is averaged over its positions (ONNX, channels first: [B, D, H, W]); of several
outputs, the first [B, D] is taken. Networks without a fixed input size receive 160 pixels.
"""

import functools
import hashlib
import importlib
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.errors import UserError, missing_extra, require, unknown_name
from ieg_core.experiment.feature_sources import (
    APPLICATIONS,
    SIZE,
    FeatureSource,
    file_digest,
    parse,
)
from ieg_core.host.archives import require_sane_size
from ieg_core.host.runtime import held_stderr
from ieg_core.models.efficientnet_weights import find, load_weights, weights_path
from ieg_core.store.seal import parse_json

_LEAST_SIDE: Final = 32
Compute = Callable[[NDArray[np.uint8]], np.ndarray]

# Of the RGB values of ImageNet's training images, divided by 255.
_MEAN: Final = np.array((0.485, 0.456, 0.406), np.float32)
_DEVIATION: Final = np.array((0.229, 0.224, 0.225), np.float32)


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that computes features, not loaded yet.

    Attributes:
      name: Its name.
      kind: As `FeatureSource.kind`.
      sha256: SHA-256 of its weights, hexadecimal.
      size: Side of its input in pixels.
    """

    name: str
    kind: str
    sha256: str
    size: int

    @property
    def label(self) -> str:
        """Its name as part of a file name."""
        return re.sub(r"[^\w.-]", "_", Path(self.name.removeprefix(APPLICATIONS)).name)

    def load(self, dtype: str = "float32") -> Compute:
        """Loads the network.

        Args:
          dtype: "float32" or "bfloat16" for the convolutions of a built-in network.

        Returns:
          A function from images, uint8 [B, size, size, 3], to features, float [B, D].

        Raises:
          UserError: When the weights are missing or damaged, or the network cannot compute features
            of such images.
        """
        return _load(self, dtype)

    def require_installed(self) -> None:
        """Raises UserError unless the weights are there, without loading them."""
        if self.kind == "built-in":
            weights_path(self.name)


def find_network(name: str, size: int = SIZE) -> FeatureNetwork:
    """Finds a network.

    Args:
      name: Its name, see `ieg_core.experiment.feature_sources`.
      size: Side of its input in pixels, unless the network fixes it.

    Returns:
      The network.

    Raises:
      UserError: When there is no such network, or what it needs is not installed.
    """
    sources = parse(name)
    if len(sources) > 1 or not sources[0].is_network:
        raise UserError(f"received {name!r}: expected one network that computes features")
    kind = sources[0].kind
    if kind == "built-in":
        require(size >= _LEAST_SIDE, "size", size, f"at least {_LEAST_SIDE} pixels")
        return FeatureNetwork(name, kind, find(name).sha256, size)
    if kind == "application":
        model, _ = _application(name)
        digest = hashlib.sha256()
        for value in model.get_weights():
            digest.update(np.ascontiguousarray(value).data)
        return FeatureNetwork(
            name, kind, digest.hexdigest(), _side(name, model.inputs[0].shape) or size
        )
    sha256 = file_digest(name)
    if kind == "keras":
        require_sane_size(Path(name))
        return FeatureNetwork(name, kind, sha256, _keras_side(name) or size)
    shape = _session(name).get_inputs()[0].shape
    return FeatureNetwork(name, kind, sha256, shape[2] if isinstance(shape[2], int) else size)


def find_networks(sources: Sequence[FeatureSource]) -> list[FeatureNetwork]:
    """Finds the networks among sources; see `find_network`."""
    return [find_network(source.name) for source in sources if source.is_network]


def largest_side(networks: Sequence[FeatureNetwork]) -> int:
    """Returns the side in pixels at which images are read for several networks."""
    return max((network.size for network in networks), default=SIZE)


# Keras is imported with the first batch: if everything is cached, the import would dominate.
@functools.lru_cache(maxsize=2)
def _load(network: FeatureNetwork, dtype: str) -> Compute:
    name = network.name
    if network.kind == "onnx":
        return functools.partial(_run_onnx, name)
    with held_stderr():  # the framework logs as it starts
        import keras

        from ieg_core import backend

        prepare: Callable[[Any], Any] | None = None
        if network.kind == "built-in":
            from ieg_core.models import efficientnet_lite

            model = efficientnet_lite.build(name, network.size, dtype)
            model.set_weights(load_weights(name))
        elif network.kind == "application":
            model, prepare = _application(name)
        else:
            model = _keras_model(name)

    def compute(batch: Any) -> Any:
        pixels = batch if network.kind == "built-in" else keras.ops.cast(batch, "float32")
        outputs = model(prepare(pixels) if prepare else pixels, training=False)
        output = _chosen(name, keras.tree.flatten(outputs))
        positions = range(1, len(output.shape) - 1)
        return keras.ops.mean(output, positions) if positions else output

    compiled = backend.compile_function(compute)

    def run(batch: NDArray[np.uint8]) -> np.ndarray:
        try:
            return np.asarray(compiled(batch))
        except UserError:
            raise
        except (ValueError, TypeError) as error:
            raise _refusal(name, error) from error

    return run


def _chosen(name: str, outputs: Sequence[Any]) -> Any:
    flat = [output for output in outputs if len(output.shape) == 2]
    output = (flat or outputs)[0]
    if len(output.shape) < 2:
        raise UserError(f"the network {name} returns {output.shape}: expected features [B, …, D]")
    return output


def _keras_side(name: str) -> int | None:
    """Reads the side of a Keras file's input from its configuration, without loading Keras."""
    try:
        with zipfile.ZipFile(name) as archive:
            config = parse_json(archive.read("config.json"))
    # zipfile does not document which exceptions a damaged archive can cause.
    except Exception as error:
        raise _refusal(name, error) from error

    def shapes(value: Any) -> list[Any]:
        if isinstance(value, Mapping):
            own_shape = [value["batch_shape"]] if "batch_shape" in value else []
            return [*own_shape, *(shape for each in value.values() for shape in shapes(each))]
        return [s for each in value for s in shapes(each)] if isinstance(value, list) else []

    all_shapes = shapes(config)
    return _side(name, all_shapes[0] if all_shapes else ())


def _side(name: str, shape: Any) -> int | None:
    """Returns the side of an input [B, side, side, 3]; None if the network does not fix it."""
    is_shape = isinstance(shape, list | tuple)
    if is_shape and len(shape) == 4 and shape[3] in (None, 3) and shape[1] == shape[2]:
        side = shape[1]
        if side is None or (type(side) is int and side > 0):
            return side
    raise _refusal(name, f"its input is {tuple(shape) if is_shape else shape}")


def _refusal(name: str, reason: object) -> UserError:
    text = " ".join(str(reason).split())[:200]
    return UserError(
        f"the network {name} cannot compute features ({text}): expected a model of square images "
        "with 3 channels that returns features [B, D]"
    )


def _keras_model(name: str) -> Any:
    import keras

    try:
        return keras.saving.load_model(name, compile=False)
    # Keras does not document which exceptions an archive of another version raises.
    except Exception as error:
        raise _refusal(name, error) from error


@functools.cache
def _application(name: str) -> tuple[Any, Callable[[Any], Any]]:
    with held_stderr():
        import keras

    known = {key: value for key, value in vars(keras.applications).items() if key[:1].isupper()}
    network = name.removeprefix(APPLICATIONS)
    if network not in known:
        raise unknown_name("network of keras.applications", network, known)
    build = known[network]
    try:
        with held_stderr():
            model = build(include_top=False, weights="imagenet", pooling="avg")
    # Keras does not document what a failed download raises.
    except Exception as error:
        raise UserError(
            f"the weights of {name} cannot be loaded ({' '.join(str(error).split())[:200]}): "
            "expected network access or the file in ~/.keras/models; or choose other features"
        ) from error
    return model, importlib.import_module(build.__module__).preprocess_input


@functools.lru_cache(maxsize=2)
def _session(name: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            name, options, providers=onnxruntime.get_available_providers()
        )
    # The exceptions of onnxruntime have no common base but Exception.
    except Exception as error:
        raise _refusal(name, error) from error
    shape = session.get_inputs()[0].shape
    is_square = len(shape) == 4 and (_is_first(shape) or (shape[3] == 3 and shape[1] == shape[2]))
    if len(session.get_inputs()) != 1 or not is_square:
        raise _refusal(name, f"its input is {shape}")
    return session


def _is_first(shape: Sequence[Any]) -> bool:
    """Returns whether channels come first: [B, 3, side, side]."""
    side = [each if isinstance(each, int) else None for each in shape[2:]]
    return shape[1] == 3 and shape[3] != 3 and side[0] == side[1]


def _run_onnx(name: str, batch: NDArray[np.uint8]) -> np.ndarray:
    session = _session(name)
    (described,) = session.get_inputs()
    channels_first = _is_first(described.shape)
    pixels: np.ndarray = batch.astype(np.float32)
    if channels_first:
        pixels = ((pixels / 255 - _MEAN) / _DEVIATION).transpose(0, 3, 1, 2)
    # PyTorch exports the batch that it was shown, usually of one image, as the only one there is.
    size = described.shape[0] if isinstance(described.shape[0], int) else len(pixels)
    parts = []
    try:
        for start in range(0, len(pixels), size):
            part = pixels[start : start + size]
            missing = np.zeros((size - len(part), *part.shape[1:]), np.float32)
            batch = np.ascontiguousarray(np.concatenate([part, missing]))
            outputs = session.run(None, {described.name: batch})
            chosen = _chosen(name, [np.asarray(each) for each in outputs])
            parts.append(chosen[: len(part)])
    except UserError:
        raise
    # As above.
    except Exception as error:
        raise _refusal(name, error) from error
    output: np.ndarray = np.concatenate(parts)
    if output.ndim == 4 and channels_first:
        return output.mean((2, 3))
    return output.mean(tuple(range(1, output.ndim - 1))) if output.ndim > 2 else output
