# SPDX-License-Identifier: Apache-2.0
"""One's own network: any Keras model with logits out, from a function or a file.

A function `build(num_classes, image_shape)` is called anew in each process, with Keras's, Python's
and NumPy's seeds set, so that a run's seed decides its initial values. A `.keras` file brings its
values along, pre-trained ones too, whatever the seed.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from ieg_core.errors import UserError
from ieg_core.network_names import Network, add_current_folder

NAME: Final = "own_network"
_ACTIVATIONS: Final = ("softmax", "sigmoid", "log_softmax")


def build_own(
    network: Network,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    dtype: str = "float32",
    seed: int = 0,
) -> keras.Model:
    """Builds one's own network and checks that it can be trained here.

    Args:
      network: Its name, of the family "function" or "file".
      num_classes: C.
      image_shape: (height, width, channels).
      dtype: "float32" or "mixed_bfloat16", the policy under which a function is called.
      seed: Decides the initial values that a function gives.

    Returns:
      A model from images in [−1, 1] to the list of logits and penultimate features, float32; where
      there are no features, the logits twice. It has its initial values.

    Raises:
      UserError: The function or file cannot be used, or the model has other inputs or outputs, ends
        in a softmax, or draws random numbers.
    """
    name = network.name
    load = _from_file if network.family == "file" else _from_function
    keras.utils.set_random_seed(seed % 2**32)
    with _policy(dtype):
        model = load(name, num_classes, image_shape)
    if not isinstance(model, keras.Model):
        raise _refusal(name, f"gave {type(model).__name__}", "a keras.Model")
    model = _connected(name, model, image_shape)
    outputs = model.outputs
    expected = f"logits [B, {num_classes}], or a list of them and of features [B, F]"
    shapes = [tuple(output.shape) for output in outputs]
    if len(outputs) > 2 or shapes[0] != (None, num_classes) or len(shapes[-1]) != 2:
        raise _refusal(name, f"gives {' and '.join(map(str, shapes))}", expected)
    _refuse_probabilities(name, outputs[0])
    if not model.trainable_variables:
        raise _refusal(name, "has nothing to train", "trainable layers")
    _refuse_randomness(name, model, image_shape)
    head = last_dense(outputs[0])
    if len(outputs) == 1:
        outputs = [outputs[0], outputs[0] if head is None else head.input]
    return keras.Model(model.inputs[0], [_as_float32(output) for output in outputs], name=NAME)


def last_dense(logits: keras.KerasTensor) -> keras.layers.Dense | None:
    """Returns the dense layer, with a bias, that the logits come out of, if it is one."""
    operation = logits._keras_history.operation
    while type(operation).__name__ == "Cast":
        operation = operation.input._keras_history.operation
    is_head = isinstance(operation, keras.layers.Dense) and operation.use_bias
    return operation if is_head and len(operation.input.shape) == 2 else None


def require_synchronized(model: keras.Model) -> None:
    """Raises UserError if a BatchNorm of one's own network sees only its replica's share.

    On TensorFlow; under JAX's sharding every mean is over the global batch.
    """
    if keras.config.backend() != "tensorflow":
        return
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized:
            raise UserError(
                f"the network's BatchNormalization {layer.name!r} takes the moments of one "
                "replica's share of a batch: expected synchronized=True on several GPUs; set it, "
                "or allow that with synchronized_batch_norm=false"
            )


def _from_function(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> Any:
    module_name, _, function_name = name.partition(":")
    add_current_folder()
    try:
        build: Callable[..., Any] = getattr(importlib.import_module(module_name), function_name)
    except AttributeError:
        known = [key for key, value in vars(sys.modules[module_name]).items() if callable(value)]
        raise _refusal(
            name,
            f"is not in the module {module_name}, which has {', '.join(known) or 'no function'}",
            "the name of a function in it",
        ) from None
    except Exception as error:
        raise _failed(name, error) from error
    try:
        return build(num_classes, image_shape)
    except Exception as error:
        raise _failed(name, error) from error


def _from_file(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> Any:
    del num_classes, image_shape  # the file's own are checked
    if not Path(name).is_file():
        raise _refusal(name, "is not there", "a file that model.save wrote")
    try:
        return keras.saving.load_model(name, compile=False, safe_mode=True)
    except Exception as error:
        raise _failed(name, error) from error


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
        have in (None, want) for have, want in zip(shapes[0][1:], image_shape, strict=True)
    )  # fmt: skip
    if not fits:
        raise _refusal(
            name,
            f"takes {' and '.join(map(str, shapes))}",
            f"one input of images {(None, *image_shape)}, in [−1, 1]",
        )
    return model


def _refuse_probabilities(name: str, logits: keras.KerasTensor) -> None:
    layer = logits._keras_history.operation
    kind = type(layer).__name__.lower()
    activation = getattr(getattr(layer, "activation", None), "__name__", kind)
    if activation in _ACTIVATIONS:
        raise _refusal(
            name,
            f"ends in a {activation}",
            "logits: leave the last activation out, the losses apply it",
        )


def _refuse_randomness(name: str, model: keras.Model, image_shape: tuple[int, int, int]) -> None:
    """Refuses layers that draw: a resumed run, or one on another backend, would draw others."""
    mend = (
        "layers that compute the same at every call: remove it or set its rate to 0; the views of "
        "the images, MixUp and weight decay regularize"
    )
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "_seed_generators", None) and not _has_layers(layer):
            raise _refusal(
                name, f"has the layer {layer.name!r} ({type(layer).__name__}) that draws", mend
            )
    # What draws from Keras's global seed does not show: two passes tell.
    values = [np.array(variable) for variable in model.variables]
    shape = [want if have is None else have for have, want in
             zip(model.inputs[0].shape[1:], image_shape, strict=True)]  # fmt: skip
    images = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)
    try:
        first, second = (_first(model(images, training=True)) for _ in range(2))
    except Exception as error:
        raise _failed(name, error) from error
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)
    if not np.allclose(first, second, rtol=1e-2, atol=1e-4, equal_nan=True):
        raise _refusal(name, "gives another result at every call in training mode", mend)


def _has_layers(layer: keras.layers.Layer) -> bool:
    return any(True for _ in layer._flatten_layers(include_self=False))


def _first(outputs: Any) -> np.ndarray:
    logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
    return keras.ops.convert_to_numpy(keras.ops.cast(logits, "float32"))


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


def _failed(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or "no message"
    return UserError(
        f"the network {name!r} could not be built ({type(error).__name__}: {reason[:300]}): "
        "expected a function of (num_classes, image_shape), or a .keras file, that gives a "
        "keras.Model"
    )


def _refusal(name: str, received: str, expected: str) -> UserError:
    return UserError(f"the network {name!r} {received}: expected {expected}")
