# SPDX-License-Identifier: Apache-2.0
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ieg_core.data.labels.restricted_pickle import NotArraysError, read_arrays

ARRAYS = {
    "clean": np.arange(7, dtype=np.int64),
    "big endian": np.arange(5).astype(">i4"),
    "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
}


@pytest.mark.parametrize("protocol", range(2, 5))
def test_arrays_come_back(protocol):
    found = read_arrays(pickle.dumps(ARRAYS, protocol=protocol))
    assert found.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_list_of_numbers_is_an_array():
    assert read_arrays(pickle.dumps({"a": [3, 1]}))["a"].tolist() == [3, 1]


class Runs:
    """Pickles to a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["value", "key", "inside a list", "whole"])
@pytest.mark.parametrize("function", ["system", "open", "eval", "popen", "touch"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_in_a_malicious_pickle_is_run(tmp_path, protocol, function, place):
    mark = tmp_path / "was-run"
    bad = {
        "system": Runs(os.system, f"touch {mark}"),
        "open": Runs(open, str(mark), "w"),
        "eval": Runs(eval, f"open({str(mark)!r}, 'w')"),
        "popen": Runs(subprocess.Popen, ["touch", str(mark)]),
        "touch": Runs(Path.touch, mark),
    }[function]
    content = {
        "value": {"clean": ARRAYS["clean"], "worse": bad},
        "key": {bad: 1},
        "inside a list": {"a": [1, bad]},
        "whole": bad,
    }[place]
    with pytest.raises(NotArraysError, match=r"it refers to \w+\.\w+"):
        read_arrays(pickle.dumps(content, protocol=protocol))
    assert not mark.exists()
    # The same bytes do run where they are read without care.
    if function == "touch" and place == "whole":
        pickle.loads(pickle.dumps(content, protocol=protocol))
        assert mark.exists()


def build_array_with(state: bytes) -> bytes:
    """A protocol-2 pickle that builds an array and gives it the state of these opcodes."""
    head = b"\x80\x02}(X\x01\x00\x00\x00acnumpy.core.multiarray\n_reconstruct\n"
    return head + b"cnumpy\nndarray\nK\x00\x85c_codecs\nencode\n" + (
        b"X\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86R\x87R" + state + b"bu."
    )  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pickle.dumps({"a": np.array([object])}), id="objects"),
        pytest.param(pickle.dumps({"a": np.array([0.5])}), id="floats"),
        pytest.param(pickle.dumps({"a": "text"}), id="text"),
        pytest.param(pickle.dumps({"a": [1, "b"]}), id="mixed list"),
        pytest.param(pickle.dumps({"a": [1 << 63]}), id="a number of no integer type"),
        pytest.param(pickle.dumps({1: ARRAYS["clean"]}), id="no names"),
        pytest.param(pickle.dumps([ARRAYS["clean"]]), id="no dictionary"),
        pytest.param(pickle.dumps(ARRAYS)[:-40], id="truncated"),
        pytest.param(b"", id="empty"),
        pytest.param(b"not a pickle", id="text file"),
        # The array type itself, called for a huge array, and a state that lies about the size.
        pytest.param(b"cnumpy\nndarray\n(L99999999999L\ntR.", id="huge"),
        pytest.param(
            build_array_with(
                b"(K\x01J\xff\xff\xff\x7f\x85cnumpy\ndtype\nX\x02\x00\x00\x00i8\x85R\x89"
                b"c_codecs\nencode\nX\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86Rt"
            ),
            id="a size that is not there",
        ),
        pytest.param(b"\x80\x02c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb.", id="alters ours"),
    ],
)
def test_what_is_no_dictionary_of_arrays_is_refused(content):
    with pytest.raises(NotArraysError) as error:
        read_arrays(content)
    assert "\n" not in str(error.value)


# What allocates by a number in the file, or overflows the stack.
BOMBS = {
    "memo": b"\x80\x02]r\xff\xff\xff\x0f.",
    "memo in text": b"]p268435455\n.",
    "nested key": b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
    "nested lists": b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "bytes": b"\x80\x04\x8e\xff\xff\xff\xff\x00\x00\x00\x00.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_takes_no_memory(name):
    with pytest.raises(NotArraysError):
        read_arrays(BOMBS[name])
