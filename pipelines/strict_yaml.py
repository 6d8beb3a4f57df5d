# SPDX-License-Identifier: Apache-2.0
"""Reads YAML into dataclasses: an unknown key, a value of another type or a double key is an error.

A field whose metadata have a function under `READ` takes what that makes of its value.
"""

import dataclasses
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ieg_core.errors import UserError, unknown_name

READ = "read"
MOST_NODES = 10_000
"""Most values of a YAML document."""
NUMBERS = {READ: lambda value: str(value) if type(value) in (int, float) else value}
"""Metadata of a text that may look like a number: `cpu_limit: 2` means "2"."""


def read(file: Path) -> Any:
    """Reads a YAML file.

    Raises:
      UserError: When it cannot be read, is not valid YAML, or a mapping has a key twice; the
        message does not name the file.
    """
    try:
        return _parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}): expected a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"is not valid YAML: {reason}; correct it") from error


def _parse(text: str) -> Any:
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None and _count(node, {}) > MOST_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_NODES:,} values")
        _refuse_doubles(node)
        return yaml.safe_load(text)
    except UserError:
        raise
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply, or an alias contains itself") from None
    except (ValueError, TypeError, AttributeError) as error:  # such as a date in a 13th month
        raise yaml.YAMLError(str(error)) from error


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns the number of values below a node, those behind an alias each time."""
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return known[id(node)]


def _refuse_doubles(node: yaml.Node | None) -> None:
    """Raises a UserError for a duplicate key in a mapping."""
    # YAML forbids duplicate keys, but PyYAML silently takes the last one.
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{name} is there twice: expected each key once; remove one")
        for _, value in node.value:
            _refuse_doubles(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_doubles(value)


def build(kind: type, content: object, where: str) -> Any:
    """Builds a dataclass from a YAML mapping, checking each value against its field's type.

    Args:
      kind: The dataclass.
      content: The parsed content.
      where: Key of this part of the file; "" for the whole file.

    Raises:
      UserError: When a key or a value is invalid; the message names the key.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where or 'the file'}: expected keys with values, got {content!r}")
    hints = typing.get_type_hints(kind)
    known = {each.name: each for each in dataclasses.fields(kind)}
    values = {}
    for key, value in content.items():
        if key not in known:
            raise unknown_name(f"key in {where}" if where else "key", str(key), known)
        place = f"{where}.{key}" if where else str(key)
        values[key] = _value(hints[key], _read(known[key], value, place), place)
    missing = [
        each.name
        for each in known.values()
        if each.default is dataclasses.MISSING
        and each.default_factory is dataclasses.MISSING
        and each.name not in values
    ]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing: expected a value for each")
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from None


def _read(field: "dataclasses.Field[Any]", value: object, where: str) -> object:
    try:
        return field.metadata[READ](value) if READ in field.metadata else value
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _value(expected: Any, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(expected):
        return build(typing.cast(type, expected), value, where)
    origin = typing.get_origin(expected)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: expected a list, got {value!r}")
        item = typing.get_args(expected)[0]
        return tuple(_value(item, each, f"{where}[{i}]") for i, each in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected keys with values, got {value!r}")
        for key, each in value.items():
            if not (isinstance(key, str) and isinstance(each, str)):
                raise UserError(f"{where}: {key}: {each!r} is not text: put it in quotes")
        return dict(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if expected is float and number and not abs(typing.cast(float, value)) > sys.float_info.max:
        return float(typing.cast(float, value))
    if type(value) is not expected:
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        hint = ": put it in quotes" if expected is str and number else ""
        raise UserError(f"{where}: expected {names[expected]}, got {value!r}{hint}")
    return value
