# SPDX-License-Identifier: Apache-2.0
"""Typed overrides of a configuration, as given by `--set key=value`."""

import dataclasses
import math
import typing
from collections.abc import Sequence
from typing import Any

from ieg_core.errors import UserError, unknown_name
from ieg_core.experiment.config import LENGTHS, Config
from ieg_core.experiment.methods import METHODS

_VARIABLES = {
    "recipe": "RECIPE",
    "dataset": "DATASET",
    "method": "METHODS",
    "network": "NETWORK",
    "seed": "SEEDS",
}
"""What is chosen before the settings, which depend on it, by the variable of `make`."""
_LENGTHS_OF_HEADS = ("schedule.num_steps", "schedule.num_epochs")
_OF_HEADS = ("head", "batch_size", "evaluations", "validation_fraction")
_IMAGES_OF_NETWORKS = ("images.channels", "images.min_crop_area")


def override(config: Config, assignments: Sequence[str]) -> Config:
    """Applies typed overrides such as "optimizer.learning_rate=0.05" or "method.lookahead_lr=0.2".

    Args:
      config: The configuration to start from.
      assignments: "key=value" each; dots for nested keys, `method.` for the method's settings. A
        length (schedule.num_steps, .num_epochs, …) replaces the present one.

    Returns:
      The changed configuration.

    Raises:
      UserError: When an assignment is not key=value, a key is unknown (the message lists the
        nearest), or a value has the wrong type or is out of range.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"expected key=value, got {assignment!r}")
        _assign(config, values, key.strip(), text.strip())
    changes = {}
    for key, value in values.items():
        if isinstance(value, dict):
            if key == "schedule" and set(LENGTHS) & value.keys():
                value = dict.fromkeys(LENGTHS, 0) | value
            value = dataclasses.replace(getattr(config, key), **value)
        changes[key] = value
    return dataclasses.replace(config, **changes)


def settable_keys(config: Config) -> dict[str, Any]:
    """Returns every key that `override` accepts, with its current value."""
    keys: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            prefix = "method" if item.name == "method_settings" else item.name
            keys |= {
                f"{prefix}.{f.name}": getattr(value, f.name) for f in dataclasses.fields(value)
            }
        elif item.name not in (*_VARIABLES, "images", "head"):
            keys[item.name] = value
    return (
        keys if config.head is None else {k: v for k, v in keys.items() if _is_of_head(config, k)}
    )


def _is_of_head(config: Config, key: str) -> bool:
    """Returns whether the training of a head, which has no views and one optimizer, uses a key."""
    section = key.partition(".")[0]
    if section == "method":
        return key == "method.mixup_alpha"
    if section == "images":
        return key not in _IMAGES_OF_NETWORKS
    return section in _OF_HEADS or key in _LENGTHS_OF_HEADS


def _assign(config: Config, values: dict[str, Any], key: str, text: str) -> None:
    known = settable_keys(config)
    if key in _VARIABLES:
        raise UserError(
            f"unknown setting {key!r}: expected {_VARIABLES[key]}=…, or --{key} of ieg train"
        )
    section, dot, name = key.partition(".")
    if key not in known:
        fields = ((method, dataclasses.fields(spec.settings)) for method, spec in METHODS.items())
        owners = [method for method, of in fields if name in [each.name for each in of]]
        if owners and section == "method" and config.head is None:
            raise UserError(
                f"unknown setting {key!r} of {config.method}: expected it with "
                f"{', '.join(owners)}; leave it out, or choose such a method"
            )
        raise unknown_name("setting", key, known)
    if not dot:
        values[key] = _typed(key, Config, key, text)
        return
    attribute = "method_settings" if section == "method" else section
    owner = type(getattr(config, attribute))
    values.setdefault(attribute, {})[name] = _typed(key, owner, name, text)


def _typed(key: str, owner: type, name: str, text: str) -> Any:
    kind = typing.get_type_hints(owner)[name]
    expected = {bool: "true or false", int: "a whole number", float: "a finite number"}
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind == tuple[str, ...]:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if typing.get_origin(kind) is tuple:
            return tuple(_finite(part) for part in text.split(",") if part)
        return _finite(text) if kind is float else kind(text)
    except (ValueError, KeyError):
        wanted = expected.get(kind, "numbers separated by commas")
        raise UserError(f"setting {key}: expected {wanted}, got {text!r}") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
