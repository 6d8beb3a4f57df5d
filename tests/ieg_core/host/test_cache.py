# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from ieg_core.host.cache import cache_folder, read_arrays, write_arrays

ARRAYS = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array([1, 2])}


def test_arrays_come_back(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    assert read_arrays(path) is None
    write_arrays(path, ARRAYS)
    found = read_arrays(path)
    assert found.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


@pytest.mark.parametrize("place", [0.02, 0.5, 0.99])
def test_a_damaged_file_counts_as_missing(tmp_path, place):
    path = tmp_path / "x.safetensors"
    write_arrays(path, ARRAYS)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    assert read_arrays(path) is None
    path.write_bytes(content[:-4])
    assert read_arrays(path) is None


def test_where_nothing_can_be_written_nothing_fails(tmp_path):
    (tmp_path / "file").write_text("in the way")
    write_arrays(tmp_path / "file" / "x.safetensors", ARRAYS)
    assert read_arrays(tmp_path / "file" / "x.safetensors") is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Path.home() / ".cache" / "ieg"),
        ({"XDG_CACHE_HOME": "/somewhere"}, Path("/somewhere/ieg")),
        ({"XDG_CACHE_HOME": "relative"}, Path.home() / ".cache" / "ieg"),
    ],
)
def test_the_folder_is_among_the_users_caches(environ, expected):
    assert cache_folder(environ) == expected


def test_without_a_home_nothing_is_cached(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # no HOME, and no entry in passwd
    path = cache_folder({}) / "x.safetensors"
    write_arrays(path, ARRAYS)
    assert read_arrays(path) is None
