# SPDX-License-Identifier: Apache-2.0
import os
import pickle
import struct
import subprocess
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from ieg_core.models.torch_weights import NotTensorsError, read_tensors

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MACHINE = {"little_endian": True, "protocol_version": PROTOCOL}


class Opcodes:
    """What a pickle is made of, written by hand: torch is not installed."""

    @staticmethod
    def tensor(key, dtype, length, offset, shape, strides):
        def numbers(values):
            return b"(" + b"".join(b"J" + struct.pack("<i", each) for each in values) + b"t"

        storage = b"(" + text("storage") + b"ctorch\n" + dtype + b"\n" + text(key) + text("cpu")
        storage += b"J" + struct.pack("<i", length) + b"NtQ"
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n("
            + storage
            + b"J"
            + struct.pack("<i", offset)
            + numbers(shape)
            + numbers(strides)
            + b"\x89ccollections\nOrderedDict\n)RtR"
        )


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def state(**tensors):
    pairs = b"".join(text(name) + code for name, code in tensors.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + pairs + b"u."


def file_of(state_code, storages, machine=MACHINE, magic=MAGIC):
    head = [pickle.dumps(each, protocol=2) for each in (magic, PROTOCOL, machine)]
    keys = pickle.dumps(list(storages), protocol=2)
    raw = [struct.pack("<q", each.size) + each.tobytes() for each in storages.values()]
    return b"".join([*head, state_code, keys, *raw])


FLOATS = np.arange(6, dtype="<f4")
STATE = state(
    rows=Opcodes.tensor("7", b"FloatStorage", 6, 0, (2, 3), (3, 1)),
    columns=Opcodes.tensor("7", b"FloatStorage", 6, 1, (2, 2), (1, 3)),
    count=Opcodes.tensor("8", b"LongStorage", 1, 0, (), ()),
)
STORAGES = {"7": FLOATS, "8": np.array([5], "<i8")}


def test_tensors_come_back_whatever_their_strides():
    found = read_tensors(file_of(STATE, STORAGES))
    assert list(found) == ["rows", "columns", "count"]
    np.testing.assert_array_equal(found["rows"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["columns"], [[1, 4], [2, 5]])
    assert found["count"].dtype == np.int64
    assert found["count"] == 5


class Runs:
    """Pickles to a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["magic", "machine", "state", "keys"])
@pytest.mark.parametrize("function", ["system", "open", "eval", "popen", "touch"])
def test_nothing_in_a_hostile_file_is_run(tmp_path, function, place):
    mark = tmp_path / "was-run"
    bad = {
        "system": Runs(os.system, f"touch {mark}"),
        "open": Runs(open, str(mark), "w"),
        "eval": Runs(eval, f"open({str(mark)!r}, 'w')"),
        "popen": Runs(subprocess.Popen, ["touch", str(mark)]),
        "touch": Runs(Path.touch, mark),
    }[function]
    content = {
        "magic": file_of(STATE, STORAGES, magic=bad),
        "machine": file_of(STATE, STORAGES, machine={"little_endian": True, "x": bad}),
        "state": file_of(pickle.dumps(OrderedDict(a=bad), protocol=2), STORAGES),
        "keys": file_of(STATE + pickle.dumps([bad], protocol=2), {}),
    }[place]
    with pytest.raises(NotTensorsError, match=r"it refers to \w+\.\w+"):
        read_tensors(content)
    assert not mark.exists()


def one(*arguments):
    return file_of(state(a=Opcodes.tensor(*arguments)), {"7": FLOATS})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "exhausted", id="empty"),
        pytest.param(b"PK\x03\x04", "no newline found", id="the zip format"),
        pytest.param(file_of(STATE, STORAGES, magic=1), "legacy format", id="another magic number"),
        pytest.param(file_of(STATE, STORAGES)[:-1], "truncated", id="cut"),
        pytest.param(file_of(STATE, STORAGES) + b"x", "data after the last storage", id="longer"),
        pytest.param(file_of(STATE, {"7": FLOATS}), "do not match", id="a storage missing"),
        pytest.param(
            file_of(STATE, STORAGES, machine={"little_endian": False}), "little", id="big endian"
        ),
        pytest.param(
            file_of(pickle.dumps([1], protocol=2), {}), "not hold a dictionary", id="no dictionary"
        ),
        pytest.param(
            one("7", b"FloatStorage", 6, 5, (2,), (1,)), "out of bounds", id="past its end"
        ),
        pytest.param(one("7", b"FloatStorage", 6, 0, (2**30, 2**30), (0, 0)), "larger", id="huge"),
        pytest.param(one("7", b"FloatStorage", 6, -1, (2,), (1,)), "other than", id="negative"),
        pytest.param(one("7", b"FloatStorage", 6, 0, (2, 2), (1,)), "other than", id="strides"),
        pytest.param(one("7", b"DoubleStorage", 6, 0, (2,), (1,)), "refers to", id="another dtype"),
        pytest.param(one("7", b"FloatStorage", 5, 0, (2,), (1,)), "length", id="another length"),
    ],
)
def test_anything_else_is_refused(content, message):
    with pytest.raises(NotTensorsError, match=message):
        read_tensors(content)
