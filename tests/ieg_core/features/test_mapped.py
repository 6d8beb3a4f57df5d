# SPDX-License-Identifier: Apache-2.0
import errno
import mmap
import os

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.features import mapped
from ieg_core.features.reduction import reduce_features

FEATURES = np.random.default_rng(0).normal(size=(9000, 6)).astype(np.float32)


def resident(array):
    """Returns how much of a mapped array is in this process's memory, in kB."""
    start = array.__array_interface__["data"][0] // mmap.PAGESIZE * mmap.PAGESIZE
    with open("/proc/self/smaps", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(f"{start:x}-"):
                return next(int(each.split()[1]) for each in lines if each.startswith("Rss"))
    raise AssertionError("the array is not mapped")


def test_large_reduced_features_are_in_a_file_and_equal(tmp_path, monkeypatch):
    expected, _ = reduce_features([FEATURES])
    np.save(tmp_path / "features.npy", FEATURES)
    given = np.load(tmp_path / "features.npy", mmap_mode="r")
    monkeypatch.setattr(mapped, "MOST_BYTES", 1000)
    reduced, _ = reduce_features([given])
    assert isinstance(reduced.base, mmap.mmap)
    assert resident(reduced) == resident(given) == 0
    np.testing.assert_array_equal(reduced, expected)
    mapped.release(reduced[:, :2])
    assert resident(reduced) == 0


def test_what_only_memory_holds_is_kept(tmp_path):
    np.save(tmp_path / "features.npy", FEATURES)
    private = np.load(tmp_path / "features.npy", mmap_mode="c")
    private[0] = 7
    for array in (private, FEATURES[:2], np.zeros(3)):
        before = array.copy()
        mapped.release(array)
        np.testing.assert_array_equal(array, before)


def test_a_full_disk_is_one_line(monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(UserError, match=r"cannot keep 1\.3 GB in .*No space left.*: expected room"):
        mapped.allocate(1_000_000, 320)
