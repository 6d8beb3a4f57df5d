# SPDX-License-Identifier: Apache-2.0
"""Reads the tensors of a legacy PyTorch file by name, without running any of its code.

Before its zip format, `torch.save` wrote five pickles followed by raw storages, each after its
length. The pickles are a magic number, the protocol, facts about the machine, the state dictionary
with references to storages, and the storages' keys in file order. A pickle is a program that can
import and call anything. This unpickler admits only the names in `_ADMITTED`, each replaced by an
inert object of this module.
"""

import io
import math
import pickle
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from ieg_core.host.pickles import load_pickle

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_LENGTH: Final = np.dtype("<i8")


class NotTensorsError(ValueError):
    """The file does not hold a dictionary of tensors."""


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """Reads the tensors of a file that `torch.save` wrote in the legacy format.

    Args:
      content: The file.

    Returns:
      float32 and int64 arrays by name, in the file's order.

    Raises:
      NotTensorsError: When the file holds anything else; the message is one line.
    """
    file = io.BytesIO(content)
    try:
        magic, protocol = load_pickle(_Unpickler, file), load_pickle(_Unpickler, file)
        if magic != _MAGIC or protocol != _PROTOCOL:
            raise NotTensorsError("it is not in PyTorch's legacy format")
        machine, state, keys = (load_pickle(_Unpickler, file) for _ in range(3))
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise NotTensorsError("it was not written on a little-endian machine")
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(each, _Tensor) for name, each in state.items()
        ):
            raise NotTensorsError("it does not hold a dictionary of tensors")
        storages = _read_storages(file, keys, [tensor.storage for tensor in state.values()])
        return {name: tensor.gather(storages[tensor.storage.key]) for name, tensor in state.items()}
    except NotTensorsError:
        raise
    # Unpickling a damaged file can raise any exception.
    except Exception as error:
        reason = str(error).splitlines()[:1]
        raise NotTensorsError(reason[0] if reason else type(error).__name__) from error


class _StorageType(NamedTuple):
    dtype: str


class _Storage(NamedTuple):
    kind: _StorageType
    key: Hashable
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def gather(self, flat: np.ndarray) -> np.ndarray:
        indices = np.array(self.offset)
        for size, stride in zip(self.shape, self.strides, strict=True):
            indices = indices[..., None] + np.arange(size) * stride
        return flat[indices]


def _read_storages(
    file: io.BytesIO, keys: Sequence[Hashable], needed: Sequence[_Storage]
) -> dict[Hashable, np.ndarray]:
    """Reads the storages after the pickles, as flat arrays by key."""
    described = {storage.key: storage for storage in needed}
    if not isinstance(keys, list) or set(keys) != set(described):
        raise NotTensorsError("its storages do not match its tensors")
    storages = {}
    for key in keys:
        storage = described[key]
        dtype = np.dtype(storage.kind.dtype)
        raw = file.read(_LENGTH.itemsize)
        length = int(np.frombuffer(raw, _LENGTH)[0])
        content = file.read(storage.length * dtype.itemsize)
        if length != storage.length or len(content) != length * dtype.itemsize:
            raise NotTensorsError("one of its storages is truncated or has the wrong length")
        storages[key] = np.frombuffer(content, dtype)
    if file.read(1):
        raise NotTensorsError("it has data after the last storage")
    return storages


# Without attributes, since a pickle can try to modify any object that it gets.
class _Dictionary(dict[Any, Any]):
    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        del state  # version numbers of the modules in the state dictionary


class _MakeDictionary:
    __slots__ = ()

    def __call__(self) -> _Dictionary:
        return _Dictionary()


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
        del rest  # requires_grad and hooks
        counts = _are_counts((offset,)) and _are_counts(shape) and _are_counts(strides)
        if not isinstance(storage, _Storage) or not counts or len(shape) != len(strides):
            raise NotTensorsError("it builds something other than a tensor")
        if max(shape, default=0) > storage.length or math.prod(shape) > storage.length:
            raise NotTensorsError("one of its tensors is larger than its storage")
        return _Tensor(storage, offset, shape, strides)


def _are_counts(values: Any) -> bool:
    return isinstance(values, tuple) and all(type(each) is int and each >= 0 for each in values)


_ADMITTED: Final = {
    ("collections", "OrderedDict"): _MakeDictionary(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "LongStorage"): _StorageType("<i8"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise NotTensorsError(f"it refers to {module[:60]}.{name[:60]}")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, _location, length, view = pid
        if tag != "storage" or not isinstance(kind, _StorageType) or view is not None:
            raise NotTensorsError("it refers to something other than a storage")
        if not isinstance(key, str) or not _are_counts((length,)):
            raise NotTensorsError("it refers to a storage in an unknown way")
        return _Storage(kind, key, length)
