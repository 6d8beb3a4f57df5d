# SPDX-License-Identifier: Apache-2.0
"""Reads a pickle of named integer arrays without running any code in it.

A pickle is a program that can import and call anything. Here it can name only five objects, each
replaced by a stand-in from this module that checks its arguments. NumPy's own unpickling is never
called.
"""

import io
import pickle
import re
from typing import Any

import numpy as np

from ieg_core.host.pickles import load_pickle

_INTEGER = re.compile(r"[<>|=]?[iu][1248]")


class NotArraysError(ValueError):
    """The pickle holds something other than named integer arrays."""


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Reads the arrays of a pickle.

    Args:
      content: The bytes of the pickle.

    Returns:
      Integer arrays by name; a list of whole numbers becomes an int64 array.

    Raises:
      NotArraysError: When the pickle holds anything else; the message names it on one line.
    """
    try:
        loaded = load_pickle(_Unpickler, io.BytesIO(content))
    except NotArraysError:
        raise
    # A damaged pickle can make the unpickler raise any exception.
    except Exception as error:
        reason = str(error).splitlines()[:1]
        raise NotArraysError(reason[0] if reason else type(error).__name__) from error
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise NotArraysError("it does not hold a dictionary of arrays")
    return {name: _content(name, value) for name, value in loaded.items()}


def _content(name: str, value: Any) -> np.ndarray:
    if isinstance(value, _Array) and value.content is not None:
        return value.content
    # One of the published arrays is a list of Python integers.
    if isinstance(value, list) and all(
        type(number) is int and abs(number) < 1 << 63 for number in value
    ):
        return np.array(value, np.int64)
    raise NotArraysError(f"its {name[:40]!r} is not an array of integers")


class _Array:
    """A placeholder for an array whose state follows later in the pickle."""

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or fortran is not False:
            raise NotArraysError("an array in it is not an array of integers")
        flat = np.frombuffer(raw, dtype.order + dtype.kind)
        self.content = flat.reshape(tuple(int(size) for size in shape))


class _Dtype:
    """A placeholder for an integer dtype whose byte order follows later in the pickle."""

    __slots__ = ("kind", "order")

    def __init__(self, text: Any) -> None:
        if not isinstance(text, str) or not _INTEGER.fullmatch(text):
            raise NotArraysError(f"an array in it is of type {str(text)[:40]!r}, not of integers")
        self.kind, self.order = text.lstrip("<>|="), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = {">": ">", "<": "<", "|": "<", "=": "<"}[state[1]]


# No attributes, because a pickle could modify any object it receives.
class _ArrayType:
    __slots__ = ()


class _Reconstruct:
    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> _Array:
        if not isinstance(kind, _ArrayType):
            raise NotArraysError("it builds something other than an array")
        del shape, code
        return _Array()


class _MakeDtype:
    __slots__ = ()

    def __call__(self, text: Any, align: Any = False, copy: Any = False) -> _Dtype:
        del align, copy
        return _Dtype(text)


class _Encode:
    """Encodes bytes that Python 2's pickle protocols store as text."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise NotArraysError("it encodes something other than bytes")
        return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy", "ndarray"): _ArrayType(),
    ("numpy", "dtype"): _MakeDtype(),
    ("_codecs", "encode"): _Encode(),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise NotArraysError(f"it refers to {module[:60]}.{name[:60]}")
        return _ALLOWED[module, name]
