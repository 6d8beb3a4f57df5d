# SPDX-License-Identifier: Apache-2.0
"""A JSON file as a typed record: how it is named, read, checked, sealed and written.

Records can be in a folder or in a bucket. Unknown keys are ignored, so that an older version can
read a newer version's files. A missing key, a value of the wrong type, or content that does not
match its digest (`ieg_core.store.seal`) makes a file damaged; the error names the key. A field
whose default is None is omitted from the file while it is None.
"""

import functools
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ieg_core.errors import UserError
from ieg_core.host.files import write_bytes_atomic
from ieg_core.store import gcs
from ieg_core.store.seal import parse_json, read_file, seal, shortened, unseal

Place = Path | str
"""A folder, or gs://bucket/folder."""

_MAX_INT = 2**63


class Record:
    """Base of the records: frozen dataclasses whose fields are the keys of a JSON object.

    Attributes:
      NAME: The file's path relative to the folder it describes, with {} for each part of its key.
    """

    NAME: ClassVar[str]

    @classmethod
    def name(cls, *key: object) -> str:
        """Returns the file's path relative to the folder it describes."""
        return cls.NAME.format(*key)

    @classmethod
    def path(cls, folder: Path, *key: object) -> Path:
        """Returns the file's path."""
        return folder / cls.name(*key)

    @classmethod
    def exists(cls, folder: Path, *key: object) -> bool:
        """Returns whether a folder has the file, and it is readable and undamaged."""
        return cls.look(folder, *key)[0] is not None

    @classmethod
    def read(cls, place: Place, *key: object) -> Self | None:
        """Reads the file from a folder or gs://…; None if there is none.

        Raises:
          UserError: When the file is damaged, or the bucket cannot be read.
        """
        return cls.load(below(place, cls.name(*key)))

    @classmethod
    def load(cls, file: Place) -> Self | None:
        """Reads a file of any name; None if there is none.

        Raises:
          UserError: When the file is damaged or unreadable, or the bucket cannot be read.
        """
        if gcs.is_url(str(file)):
            content = gcs.read(str(file))
            return cls.decode(content[0], str(file)) if content else None
        try:
            return cls.decode(read_file(Path(file)), str(file))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(
                f"{file} cannot be read ({error.strerror}): expected a readable file; fix its "
                "permissions, or delete it and run again"
            ) from error

    @classmethod
    def look(cls, place: Place, *key: object) -> tuple[Self | None, str]:
        """Reads the file without raising if it is damaged or unreadable.

        Returns:
          The record, or None if it is missing or unreadable; and why it is unreadable, or "".
        """
        try:
            return cls.read(place, *key), ""
        except UserError as error:
            return None, str(error)

    @classmethod
    def decode(cls, data: bytes, place: str) -> Self:
        """Decodes the file's content.

        Args:
          data: The content.
          place: Where it was read, for errors.

        Raises:
          UserError: When the content is not JSON, does not match its digest, or is not a record of
            this type.
        """
        try:
            value = unseal(parse_json(data))
        except ValueError as error:
            raise _damaged(place, str(error)) from error
        return cls.parse(value, place)

    @classmethod
    def parse(cls, value: object, place: str) -> Self:
        """Converts a JSON value to a record.

        Args:
          value: The decoded JSON.
          place: Where it was read, for errors.

        Raises:
          UserError: When a key is missing, or a value has the wrong type.
        """
        try:
            return typing.cast(Self, _checked(cls, value, ""))
        except _MismatchError as error:
            raise _damaged(place, str(error)) from None

    def to_value(self) -> dict[str, Any]:
        """Returns the JSON object, without fields that are None and have None as default."""
        optional = {field.name for field in fields(typing.cast(Any, self)) if field.default is None}
        return {k: v for k, v in vars(self).items() if v is not None or k not in optional}

    def encode(self) -> bytes:
        """Returns the file's content; raises ValueError for NaN and infinity, not valid in JSON."""
        value = json.loads(json.dumps(self.to_value(), allow_nan=False, default=vars))
        return f"{json.dumps(seal(value), indent=1)}\n".encode()

    def write(self, place: Place, *key: object) -> None:
        """Writes the file to a folder or gs://… atomically.

        Raises:
          UserError: When the folder or the bucket cannot be written.
        """
        file = below(place, self.name(*key))
        if isinstance(file, Path):
            write_bytes_atomic(file, self.encode())
        else:
            gcs.write(file, self.encode())


def below(place: Place, name: str) -> Path | str:
    """Returns a file's path in a folder, or its URL in a bucket."""
    return gcs.join(str(place), name) if gcs.is_url(str(place)) else Path(place) / name


class _MismatchError(ValueError):
    """A value does not have the type that its field declares."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        received = "nothing" if value is MISSING else shortened(value)
        super().__init__(f"{f'{name}: ' if name else ''}received {received}, expected {expected}")


def _damaged(place: str, reason: str) -> UserError:
    return UserError(f"{place} is damaged ({reason}): delete it and run again")


_type_hints = functools.cache(typing.get_type_hints)


def _checked(kind: Any, value: Any, name: str) -> Any:
    """Converts a JSON value to the type that a field declares.

    Raises:
      _MismatchError: When it has another type.
    """
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _object(kind, value, name)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # always with None, the only kind of union in use
        return None if value is None else _checked(arguments[0], value, name)
    if origin is Literal and value in arguments:
        return value
    if origin is Sequence and isinstance(value, list):
        return [_checked(arguments[0], each, f"{name}[{i}]") for i, each in enumerate(value)]
    if origin is Mapping and isinstance(value, dict):
        return {key: _checked(arguments[1], each, f"{name}.{key}") for key, each in value.items()}
    if type(value) is int and abs(value) >= _MAX_INT:
        raise _MismatchError(name, value, "a number of at most 63 bits")
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return value
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise _MismatchError(name, value, _described(kind))


def _object(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise _MismatchError(name, value, "an object")
    hints, values = _type_hints(kind), {}
    for field in fields(kind):
        inner = f"{name}.{field.name}" if name else field.name
        if field.name in value:
            values[field.name] = _checked(hints[field.name], value[field.name], inner)
        elif field.default is MISSING:
            raise _MismatchError(inner, MISSING, _described(hints[field.name]))
    return kind(**values)


def _described(kind: Any) -> str:
    """Returns the JSON name of a declared type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return f"{_described(arguments[0])} or null"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is Sequence:
        return f"a list of {_described(arguments[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    return names.get(kind, "an object")
