# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from safetensors.numpy import save

from ieg_core.errors import UserError
from ieg_core.store import arrays

ARRAYS = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array([1, 2])}
FACTS = {"step": 3, "curves": {"loss": [0.1, 2.5]}}


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(arrays.encode(ARRAYS, FACTS))
    return file


def test_arrays_and_facts_come_back(path):
    found, facts = arrays.read(path, "")
    assert facts == FACTS == arrays.read_facts(path, "")
    assert found.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


def test_flipped_bits_are_harmless_or_found(path):
    content = path.read_bytes()
    harmless, messages = 0, []
    for place in range(0, len(content) * 8, 43):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found, facts = arrays.read(path, "write it again")
        except UserError as error:
            messages.append(str(error))
        else:
            harmless += 1
            assert facts == FACTS
            assert all((found[name] == ARRAYS[name]).all() for name in ARRAYS)
    assert all(message.startswith(f"{path} is damaged (") for message in messages)
    assert all(message.endswith("): write it again") for message in messages)
    assert not any("\n" in message for message in messages)
    assert harmless < 5  # such as a space in the header that becomes a line break


def test_exchanged_arrays_are_found(path):
    path.write_bytes(arrays.encode({"a": ARRAYS["a"], "b": ARRAYS["b"][::-1]}))
    other = path.read_bytes()
    path.write_bytes(arrays.encode(ARRAYS))
    header = len(other) - 28
    path.write_bytes(path.read_bytes()[:header] + other[header:])
    with pytest.raises(UserError, match="was altered"):
        arrays.read(path, "")


@pytest.mark.parametrize("metadata", [None, {"ieg": "{}"}, {"ieg": "[" * 10**5}, {"ieg": "3"}])
def test_a_file_without_a_digest_is_refused(path, metadata):
    path.write_bytes(save(ARRAYS, metadata))
    for read in (arrays.read, arrays.read_facts):
        with pytest.raises(UserError, match="is damaged"):
            read(path, "")
    assert arrays.read_cached(path) is None


def test_a_cached_file_that_cannot_be_read_or_written_counts_as_missing(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    assert arrays.read_cached(path) is None
    arrays.write_cached(path, ARRAYS, FACTS)
    assert arrays.read_cached(path)[1] == FACTS
    path.write_bytes(path.read_bytes()[:-4])
    assert arrays.read_cached(path) is None
    arrays.write_cached(path / "below a file", ARRAYS)
    assert arrays.read_cached(path.parent) is None
