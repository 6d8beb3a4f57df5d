# SPDX-License-Identifier: Apache-2.0
"""Initial values of a network from a file, such as the exported model of another training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import safetensors.numpy

from ieg_core.errors import UserError
from ieg_core.models.user_network import describe

HEAD = "logits/"
"""The dense layer, which starts from drawn values: its classes are those of other data."""


def initial_values(model: keras.Model, drawn: Sequence[np.ndarray], file: str) -> list[np.ndarray]:
    """Replaces drawn initial values, except those of the dense layer, with those of a file.

    A `.keras` file is of a network with the same layer names, for example the `model.keras` of a
    run. A `.safetensors` file has a tensor for each variable, named by the variable's path, for
    example "stem/kernel"; further tensors are ignored. BatchNorm's statistics are values too.

    Args:
      model: A network from `zoo.build`.
      drawn: A value for each of `model.variables`.
      file: The path of the file.

    Returns:
      A value for each of `model.variables`, in the same order, shape and dtype.

    Raises:
      UserError: When the file cannot be read, or lacks a value or has it in another shape.
    """
    stored = _read(file)
    values = []
    for variable, value in zip(model.variables, drawn, strict=True):
        name = _name(variable)
        if not name.startswith(HEAD):
            shape = stored[name].shape if name in stored else "no such value"
            if shape != value.shape:
                raise UserError(
                    f"{file} does not fit the network {model.name!r}: expected {name!r} "
                    f"{value.shape}, received {shape}; choose the network that the file was saved "
                    "from"
                )
            value = stored[name].astype(value.dtype)
        values.append(value)
    return values


def _read(file: str) -> Mapping[str, np.ndarray]:
    try:
        if file.endswith(".safetensors"):
            return safetensors.numpy.load(Path(file).read_bytes())
        stored = keras.saving.load_model(file, compile=False, safe_mode=True)
    # Damaged and foreign files can raise any exception.
    except Exception as error:
        raise UserError(
            f"cannot read initial values from {file} ({describe(error)}): expected a .keras file "
            "that model.save wrote, or a .safetensors file; correct the setting pretrained"
        ) from error
    return {
        _name(variable): np.array(keras.ops.convert_to_numpy(variable))
        for variable in stored.variables
    }


def _name(variable: keras.Variable) -> str:
    """Returns layer and variable, without the models that the layer is nested in."""
    return "/".join(variable.path.split("/")[-2:])
