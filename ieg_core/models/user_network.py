# SPDX-License-Identifier: Apache-2.0
"""One's own network: any Keras model with logits out, from a function or a file.

A function `build(num_classes, image_shape)` is called anew in each process, with Keras's, Python's
and NumPy's seeds set, so that a run's seed decides its initial values. A `.keras` file brings its
values along, pre-trained ones too, whatever the seed.
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

NAME: Final = "own_network"
_ACTIVATIONS: Final = ("softmax", "sigmoid", "log_softmax", "logsoftmax")
_LOGITS: Final = "logits: leave the last activation out, the losses apply it"
_STEADY: Final = (
    "layers that compute the same at every call: remove it or set its rate to 0; the views of the "
    "images, MixUp and weight decay regularize"
)


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
        in a softmax, draws random numbers, or sets its trainable variables itself.
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
    _try_out(name, model, image_shape)
    head = last_dense(outputs[0])
    # What a model calls its features need not be what its last layer takes.
    features = head[1] if head else outputs[-1]
    tensors = [_as_float32(output) for output in (outputs[0], features)]
    return keras.Model(model.inputs[0], tensors, name=NAME)


def last_dense(
    logits: keras.KerasTensor,
) -> tuple[keras.layers.Dense, keras.KerasTensor] | None:
    """Finds the dense layer that the logits come out of.

    Args:
      logits: A model's output.

    Returns:
      The layer and its input there, [B, F]; None unless logits = input · kernel + bias.
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


def import_module(name: str) -> ModuleType:
    """Imports the module of `package.module:function`, and with it the layers that it registers.

    Raises:
      UserError: It cannot be imported.
    """
    add_current_folder()
    try:
        return importlib.import_module(name.partition(":")[0])
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def describe(error: BaseException) -> str:
    """Says in a few words why Keras, or a function, could not make a network."""
    text = " ".join(str(error).split())
    # Keras wraps the reason in the whole configuration, layer by layer.
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
            "the name of a function in it",
        )
    try:
        return build(num_classes, image_shape)
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _from_file(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> Any:
    del num_classes, image_shape  # the file's own are checked
    if not Path(name).is_file():
        raise _refusal(name, "is not there", "a file that model.save wrote")
    try:
        return keras.saving.load_model(name, compile=False, safe_mode=True)
    except Exception as error:
        raise UserError(
            f"the network {name!r} cannot be loaded ({describe(error)}): expected a file that "
            "model.save wrote of Keras's own layers; a network with others is named as "
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
        have in (None, want) for have, want in zip(shapes[0][1:], image_shape, strict=True)
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
            f"takes {model.inputs[0].dtype}, which images in [−1, 1] would be cut to",
            "an input of floats: leave its dtype out",
        )
    return model


def _refuse_probabilities(name: str, logits: keras.KerasTensor) -> None:
    activation = _last_activation(logits)
    if activation in _ACTIVATIONS:
        raise _refusal(name, f"ends in a {activation}", _LOGITS)


def _last_activation(output: keras.KerasTensor) -> str:
    """Names what an output comes out of, in a nested model too."""
    layer, _, place = output._keras_history
    if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
        return _last_activation(layer.outputs[place])
    return getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__.lower())


def _try_out(name: str, model: keras.Model, image_shape: tuple[int, int, int]) -> None:
    """Refuses what only a pass in training mode shows; the model's values stay as they were.

    That is layers that draw, for a resumed run, or one on another backend, would draw others;
    layers that set what the optimizer is to move; and outputs that are no logits.
    """
    values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    shape = [want if have is None else have for have, want in
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
    moved = {
        id(variable)
        for variable, value in zip(model.variables, values, strict=True)
        if not np.array_equal(keras.ops.convert_to_numpy(variable), value, equal_nan=True)
    }
    _restore(model, values)
    for layer in model._flatten_layers(include_self=True):
        kind = f"has the layer {layer.name!r} ({type(layer).__name__})"
        if any(id(generator.state) in moved for generator in layer._seed_generators):
            raise _refusal(name, f"{kind} that draws", _STEADY)
        if any(id(variable) in moved for variable in layer._trainable_variables):
            raise _refusal(
                name,
                f"{kind} that sets trainable variables as it computes",
                "layers whose trainable variables the optimizer alone moves: leave it out",
            )
    # What draws from Keras's global seed does not show: a second pass tells.
    second = run()
    _restore(model, values)
    if not np.allclose(first, second, rtol=1e-2, atol=1e-4, equal_nan=True):
        raise _refusal(name, "gives another result at every call in training mode", _STEADY)
    if not np.isfinite(first).all():
        raise _refusal(name, "gives values that are not finite before it is trained", "finite ones")
    if (first >= 0).all() and np.allclose(first.sum(1), 1, atol=1e-2):
        raise _refusal(name, "gives probabilities (at least 0, sum 1)", _LOGITS)


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
        "(num_classes, image_shape) that gives a keras.Model"
    )


def _refusal(name: str, received: str, expected: str) -> UserError:
    return UserError(f"the network {name!r} {received}: expected {expected}")
