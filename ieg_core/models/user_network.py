# SPDX-License-Identifier: Apache-2.0
"""User networks: any Keras model that returns logits, from a function or a file.

A function `build(num_classes, image_shape)` is called in each process with the seeds of Keras,
Python and NumPy set, so the run's seed determines the initial weights. A `.keras` file contains its
weights, for example pre-trained ones, independent of the seed.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import keras
import numpy as np

from ieg_core.errors import UserError
from ieg_core.experiment.networks import Network, add_current_folder
from ieg_core.host.archives import require_sane_size

NAME: Final = "own_network"
_ACTIVATIONS: Final = ("softmax", "sigmoid", "log_softmax", "logsoftmax")
_LOGITS: Final = "logits; remove the last activation, since the losses apply it"
_DETERMINISTIC: Final = (
    "layers that compute the same result in every call; remove the random layer or set its rate to "
    "0; image augmentation, MixUp and weight decay regularize"
)


def build_user_network(
    network: Network,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    dtype: str = "float32",
    seed: int = 0,
) -> keras.Model:
    """Builds a user network and checks that it can be trained.

    Args:
      network: The network, of the family "function" or "file".
      num_classes: C.
      image_shape: (height, width, channels).
      dtype: "float32" or "mixed_bfloat16", the dtype policy under which a function is called.
      seed: Determines the initial weights that a function draws.

    Returns:
      A model with its initial weights, from images in [−1, 1], float32 [B, H, W, ch], to the list
      of logits, float32 [B, C], and penultimate features, float32 [B, F]; the logits twice if there
      are no features.

    Raises:
      UserError: When the function or file cannot be used, or the model has wrong inputs or outputs,
        ends in a softmax, draws random numbers, or assigns its own trainable variables.
    """
    name = network.name
    load = _from_file if network.family == "file" else _from_function
    keras.utils.set_random_seed(seed % 2**32)
    with _policy(dtype):
        model = load(name, num_classes, image_shape)
    if not isinstance(model, keras.Model):
        raise _refusal(name, f"returned {type(model).__name__}", "a keras.Model")
    model = _connected(name, model, image_shape)
    outputs = model.outputs
    expected = f"logits [B, {num_classes}], or a list of logits and features [B, F]"
    shapes = [tuple(output.shape) for output in outputs]
    if len(outputs) > 2 or shapes[0] != (None, num_classes) or len(shapes[-1]) != 2:
        raise _refusal(name, f"returns {' and '.join(map(str, shapes))}", expected)
    _refuse_probabilities(name, outputs[0])
    if not model.trainable_variables:
        raise _refusal(name, "has no trainable variables", "trainable layers")
    _try_out(name, model, image_shape)
    head = last_dense(outputs[0])
    # The features that a model returns need not be the input of its last layer.
    features = head[1] if head else outputs[-1]
    tensors = [_as_float32(output) for output in (outputs[0], features)]
    return keras.Model(model.inputs[0], tensors, name=NAME)


def last_dense(
    logits: keras.KerasTensor,
) -> tuple[keras.layers.Dense, keras.KerasTensor] | None:
    """Finds the dense layer that computes the logits.

    Args:
      logits: The output of a model, [B, C].

    Returns:
      The layer and its input, [B, F]; None unless logits = input · kernel + bias.
    """
    layer, node, _ = logits._keras_history
    while type(layer).__name__ == "Cast":
        layer, node, _ = layer.input._keras_history
    is_dense = isinstance(layer, keras.layers.Dense) and layer.use_bias
    if not is_dense or layer.activation is not keras.activations.linear:
        return None
    features = layer._inbound_nodes[node].input_tensors[0]
    return (layer, features) if len(features.shape) == 2 else None


def require_synchronized(model: keras.Model) -> None:
    """Checks that no BatchNormalization of a user network is limited to its replica's share.

    Does nothing on JAX, where sharding makes every mean global.

    Args:
      model: The user network.

    Raises:
      UserError: When a BatchNormalization is not synchronized.
    """
    if keras.config.backend() != "tensorflow":
        return
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized:
            raise UserError(
                f"the network's BatchNormalization {layer.name!r} uses the moments of one "
                "replica's share of a batch: expected synchronized=True on several GPUs; set it, "
                "or allow local moments with synchronized_batch_norm=false"
            )


def import_module(name: str) -> ModuleType:
    """Imports the module of a network, which also registers its custom layers.

    Args:
      name: The network's name, "package.module:function".

    Returns:
      The module.

    Raises:
      UserError: When the import fails.
    """
    add_current_folder()
    try:
        return importlib.import_module(name.partition(":")[0])
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def describe(error: BaseException) -> str:
    """Summarizes an exception of Keras or of a user's function in a few words."""
    text = " ".join(str(error).split())
    # Keras embeds the reason in the configuration of all layers.
    text = text.rpartition("Exception encountered: ")[2]
    text = text.partition(" Full object config")[0].partition(" Example: ")[0]
    return f"{type(error).__name__}: {text[:300] or 'no message'}"


def _from_function(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> Any:
    module, function = import_module(name), name.partition(":")[2]
    build: Callable[..., Any] | None = getattr(module, function, None)
    if build is None:
        known = [key for key, value in vars(module).items() if callable(value)]
        raise _refusal(
            name,
            f"is not in the module {module.__name__}, which has "
            f"{', '.join(known) or 'no function'}",
            "the name of a function in the module",
        )
    try:
        return build(num_classes, image_shape)
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _from_file(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> Any:
    del num_classes, image_shape  # the model's shapes are checked later
    if not Path(name).is_file():
        raise _refusal(name, "does not exist", "a file written by model.save")
    require_sane_size(Path(name))
    try:
        return keras.saving.load_model(name, compile=False, safe_mode=True)
    except Exception as error:
        raise UserError(
            f"the network {name!r} cannot be loaded ({describe(error)}): expected a file written "
            "by model.save with built-in Keras layers only; pass a network with custom layers as "
            "package.module:function"
        ) from error


def _connected(name: str, model: keras.Model, image_shape: tuple[int, int, int]) -> keras.Model:
    """Returns the model as a graph from its input to its outputs."""
    if not getattr(model, "inputs", None):
        try:
            if isinstance(model, keras.Sequential):
                model.build((None, *image_shape))
            else:
                images = keras.Input(image_shape)
                model = keras.Model(images, model(images))
        except Exception as error:
            raise _failed(name, error) from error
    shapes = [tuple(value.shape) for value in model.inputs]
    fits = len(shapes) == 1 and len(shapes[0]) == 4 and all(
        actual in (None, side) for actual, side in zip(shapes[0][1:], image_shape, strict=True)
    )  # fmt: skip
    if not fits:
        raise _refusal(
            name,
            f"takes {' and '.join(map(str, shapes))}",
            f"one input of images {(None, *image_shape)}, in [−1, 1]",
        )
    if "float" not in model.inputs[0].dtype:
        raise _refusal(
            name,
            f"takes {model.inputs[0].dtype}, to which images in [−1, 1] would be truncated",
            "a floating-point input; remove its dtype",
        )
    return model


def _refuse_probabilities(name: str, logits: keras.KerasTensor) -> None:
    activation = _last_activation(logits)
    if activation in _ACTIVATIONS:
        raise _refusal(name, f"ends in a {activation}", _LOGITS)


def _last_activation(output: keras.KerasTensor) -> str:
    """Returns the activation, or else the layer type, that computes an output; handles nesting."""
    layer, _, place = output._keras_history
    if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
        return _last_activation(layer.outputs[place])
    return getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__.lower())


def _try_out(name: str, model: keras.Model, image_shape: tuple[int, int, int]) -> None:
    """Refuses faults that only a pass in training mode reveals; restores the model's variables.

    These are layers that draw random numbers, because a resumed run or another backend would draw
    different ones; layers that assign variables which the optimizer should update; and outputs that
    are not logits.
    """
    values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    shape = [side if actual is None else actual for actual, side in
             zip(model.inputs[0].shape[1:], image_shape, strict=True)]  # fmt: skip
    images = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)

    def run() -> np.ndarray:
        try:
            outputs = model(images, training=True)
        except Exception as error:
            raise _failed(name, error) from error
        logits = keras.tree.flatten(outputs)[0]
        return keras.ops.convert_to_numpy(keras.ops.cast(logits, "float32"))

    first = run()
    changed = {
        id(variable)
        for variable, value in zip(model.variables, values, strict=True)
        if not np.array_equal(keras.ops.convert_to_numpy(variable), value, equal_nan=True)
    }
    _restore(model, values)
    for layer in model._flatten_layers(include_self=True):
        prefix = f"has the layer {layer.name!r} ({type(layer).__name__})"
        if any(id(generator.state) in changed for generator in layer._seed_generators):
            raise _refusal(name, f"{prefix} that draws random numbers", _DETERMINISTIC)
        if any(id(variable) in changed for variable in layer._trainable_variables):
            raise _refusal(
                name,
                f"{prefix} that assigns trainable variables during the forward pass",
                "layers whose trainable variables only the optimizer updates; remove it",
            )
    # Draws from Keras's global seed change no variable; a second pass reveals them.
    second = run()
    _restore(model, values)
    if not np.allclose(first, second, rtol=1e-2, atol=1e-4, equal_nan=True):
        raise _refusal(
            name, "returns a different result in every call in training mode", _DETERMINISTIC
        )
    if not np.isfinite(first).all():
        raise _refusal(name, "returns values that are not finite before training", "finite values")
    if (first >= 0).all() and np.allclose(first.sum(1), 1, atol=1e-2):
        raise _refusal(name, "returns probabilities (non-negative, sum 1)", _LOGITS)


def _restore(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)


def _as_float32(tensor: keras.KerasTensor) -> keras.KerasTensor:
    return tensor if tensor.dtype == "float32" else keras.ops.cast(tensor, "float32")


@contextlib.contextmanager
def _policy(dtype: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _failed(name: str, error: BaseException) -> UserError:
    return UserError(
        f"the network {name!r} could not be built ({describe(error)}): expected a function of "
        "(num_classes, image_shape) that returns a keras.Model"
    )


def _refusal(name: str, received: str, expected: str) -> UserError:
    return UserError(f"the network {name!r} {received}: expected {expected}")
