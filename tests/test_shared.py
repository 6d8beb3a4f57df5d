# SPDX-License-Identifier: Apache-2.0
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.conftest import SLOWEST
from tests.shared import shared_arrays


class Factory:
    """Of a worker of pytest-xdist, whose folder lies in the run's."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

    def getbasetemp(self):
        return self.folder


def test_of_two_workers_one_computes_and_both_have_the_arrays(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    computed = []

    def compute():
        computed.append(1)
        return {"a/b": np.arange(3), "c": np.float32(2)}

    factories = [Factory(tmp_path / name) for name in ("gw0", "gw1")]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda each: shared_arrays(each, "x", compute), factories))
    assert len(computed) == 1
    for arrays in found:
        assert arrays.keys() == {"a/b", "c"}
        np.testing.assert_array_equal(arrays["a/b"], [0, 1, 2])


def test_without_workers_nothing_is_taken_from_another_run(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    for number, name in enumerate(("pytest-0", "pytest-1")):
        arrays = shared_arrays(Factory(tmp_path / name), "x", lambda: {"a": np.array(number)})  # noqa: B023
        assert arrays["a"] == number


def test_what_could_not_be_computed_is_tried_again(tmp_path):
    def fail():
        raise AssertionError("out of memory")

    factory = Factory(tmp_path / "run")
    with pytest.raises(AssertionError, match="out of memory"):
        shared_arrays(factory, "x", fail)
    assert shared_arrays(factory, "x", lambda: {"a": np.array(1)})["a"] == 1


def test_the_slowest_files_come_first(request):
    files = list(dict.fromkeys(item.path for item in request.session.items))
    root = request.config.rootpath / "tests"
    slowest = [root / name for name in SLOWEST if root / name in files]
    assert files[: len(slowest)] == slowest
