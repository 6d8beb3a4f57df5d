# SPDX-License-Identifier: Apache-2.0
"""Builds networks by name, and draws initial weights that are the same on every backend."""

import re
from collections.abc import Callable

import keras
import numpy as np

from ieg_core.draws.generator import generator
from ieg_core.errors import UserError
from ieg_core.experiment.networks import Network, parse
from ieg_core.models import bottleneck, imagenet, postactivation, preactivation, user_network
from ieg_core.models.layers import Layers
from ieg_core.models.normalization import EPSILON, MOMENTUM, BatchNormalization

_DTYPES = ("float32", "float64", "mixed_bfloat16")
_BATCH_NORMS = ("auto", "fused", "composite", "keras")


def build(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    dtype: str = "float32",
    batch_norm: str = "auto",
    synchronized: bool = True,
    seed: int = 0,
) -> keras.Model:
    """Builds a network.

    Args:
      name: The network's name, see `ieg_core.experiment.networks`.
      num_classes: C, at least 2.
      image_shape: (height, width, channels) of an image, in pixels.
      dtype: Keras dtype policy: "float32", "mixed_bfloat16" (variables, moments, features and
        logits remain float32) or "float64" (also the inputs; for gradient tests).
      batch_norm: "auto" for the backend's fastest kernel; "fused" or "composite" for that kernel;
        "keras" for `keras.layers.BatchNormalization`.
      synchronized: Whether BatchNorm's moments are those of the global batch over all replicas.
      seed: Determines the initial weights of a user network; others are built without weights.

    Returns:
      A model from images in [−1, 1], float32 [B, H, W, ch], to the list of logits, float32 [B, C],
      and penultimate features, float32 [B, F]. Except in user networks, all kernels are zero: set
      them with `initial_values`.

    Raises:
      UserError: When the name, the shape or a setting is invalid, or a user network is refused.
    """
    network = parse(name)
    if num_classes < 2:
        raise UserError(f"received num_classes={num_classes}: expected at least 2 classes")
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise UserError(
            f"received the image shape {image_shape}: expected (height, width, channels), each at "
            "least 1"
        )
    _check("dtype", dtype, _DTYPES)
    _check("batch_norm", batch_norm, _BATCH_NORMS)
    if network.family == "features":
        raise UserError(
            f"received the network {name!r}, on whose features a head is trained: expected a "
            f"network that is trained itself; use FEATURES={name}"
        )
    if network.family in ("function", "file"):
        return user_network.build_user_network(
            network, num_classes, image_shape, dtype=dtype, seed=seed
        )

    momentum = imagenet.MOMENTUM if network.family == "imagenet" else MOMENTUM

    def normalization(layer_name: str) -> keras.Layer:
        if batch_norm == "keras":
            return keras.layers.BatchNormalization(
                momentum=momentum, epsilon=EPSILON, name=layer_name, dtype=dtype
            )
        return BatchNormalization(
            kernel=batch_norm,
            synchronized=synchronized,
            momentum=momentum,
            name=layer_name,
            dtype=dtype,
        )

    images, logits, features = _connect(network, num_classes, image_shape, dtype, normalization)
    return keras.Model(images, [logits, features], name=name)


def stock_model(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> keras.Model:
    """Builds the same float32 network from built-in Keras layers only, for export.

    The order of its weights is that of `build`, so `stock_model(...).set_weights(
    model.get_weights())` copies a trained model. A `.keras` file saved from it loads without this
    package.

    Args:
      name: The network's name, see `ieg_core.experiment.networks`.
      num_classes: C, at least 2.
      image_shape: (height, width, channels) of an image, in pixels.

    Returns:
      A model from images in [−1, 1], float32 [B, H, W, ch], to logits, float32 [B, C]; the output
      of the layer "features" are the penultimate features.

    Raises:
      UserError: When `build` raises it.
    """
    model = build(name, num_classes, image_shape, batch_norm="keras")
    # Keras does not allow slashes and colons, which names of user networks contain.
    return keras.Model(model.input, model.outputs[0], name=re.sub(r"[^\w.-]", "_", name))


def dense_variables(model: keras.Model) -> tuple[int, int] | None:
    """Finds the kernel and bias of the last layer among the trainable variables.

    Args:
      model: A network from `build`.

    Returns:
      The positions of kernel and bias; None for a user network that does not end in a dense layer.
    """
    last = user_network.last_dense(model.outputs[0])
    if last is None:
        return None
    head = last[0]
    positions = [
        position
        for parameter in (head.kernel, head.bias)
        for position, variable in enumerate(model.trainable_variables)
        if variable is parameter
    ]
    return (positions[0], positions[1]) if len(positions) == 2 else None


def initial_values(model: keras.Model, seed: int) -> list[np.ndarray]:
    """Draws a network's initial variables on the host, identical on every backend.

    User networks keep the weights they were built with.

    Kernels are normal with mean 0: convolutions with variance 2/fan (He; fan-in, but fan-out for
    Wide ResNets, as in their authors' code; half of it in a released ImageNet network, and
    2/(fan-in + fan-out), Glorot's, in a released ResNet for CIFAR), the dense layer with Glorot's;
    in a released Wide ResNet it is uniform in ±1/√C.
    Scales and moving variances are 1, all other variables 0. The draw for variable i depends only
    on (seed, i).

    Args:
      model: A network from `build` or `stock_model`.
      seed: The run's seed.

    Returns:
      One array for each of `model.variables`, in the same order, shape and dtype.
    """
    if model.name == user_network.NAME:
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    network = parse(model.name)
    fan_out = network.family == "wide"
    is_glorot = network.family in ("bottleneck", "basic") and network.released
    gain = 1.0 if network.family == "imagenet" and network.released else 2.0
    values = []
    for index, variable in enumerate(model.variables):
        shape = tuple(variable.shape)
        if variable.name == "kernel":
            *receptive_field, inputs, outputs = shape
            area = int(np.prod(receptive_field))
            draws = generator(seed, "initial_values", index)
            if receptive_field:
                fan = inputs + outputs if is_glorot else outputs if fan_out else inputs
                deviation = np.sqrt(gain / (area * fan))
                value = deviation * draws.standard_normal(shape)
            elif fan_out and network.released:
                value = draws.uniform(-1, 1, shape) / np.sqrt(outputs)
            else:
                value = np.sqrt(2.0 / (inputs + outputs)) * draws.standard_normal(shape)
        elif variable.name in ("gamma", "moving_variance"):
            value = np.ones(shape)
        else:
            value = np.zeros(shape)
        values.append(value.astype(variable.dtype))
    return values


def _check(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"received {setting}={value!r}: expected one of {', '.join(known)}")


def _connect(
    network: Network,
    num_classes: int,
    image_shape: tuple[int, int, int],
    dtype: str,
    normalization: Callable[[str], keras.Layer],
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Connects images to logits and features."""
    variable_dtype = "float64" if dtype == "float64" else "float32"
    layers = Layers(dtype, variable_dtype, normalization)
    images = keras.Input(image_shape, dtype=variable_dtype, name="images")
    if network.family == "bottleneck":
        maps = bottleneck.features(
            images, layers, network.blocks_per_stage, released=network.released
        )
    elif network.family == "basic":
        maps = postactivation.features(
            images, layers, network.blocks_per_stage, released=network.released
        )
    elif network.family == "imagenet":
        maps = imagenet.features(
            images, layers, network.blocks_per_stage, released=network.released
        )
    elif network.family == "preact8":
        maps = preactivation.features(images, layers, network.blocks_per_stage, 32, (32, 64, 128))
    else:
        filters = tuple(base * network.width for base in (16, 32, 64))
        maps = preactivation.features(
            images, layers, network.blocks_per_stage, 16, filters, released=network.released
        )
    logits, features = layers.head(maps, num_classes)
    return images, logits, features
