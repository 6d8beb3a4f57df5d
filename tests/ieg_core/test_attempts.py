# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from ieg_core import attempts, runs
from ieg_core.results import write_json_atomic


@pytest.fixture
def cell(tmp_path, monkeypatch):
    monkeypatch.setenv(runs.ATTEMPTS, "2")
    folder = tmp_path / "cells" / "c"
    write_json_atomic(folder / "config.json", {})
    return folder


def count(tmp_path, run="now"):
    return attempts.count_evaluation(str(tmp_path), "c", run)


def test_each_run_counts_its_own_attempts(tmp_path, cell):
    assert [count(tmp_path) for _ in range(3)] == [0, 1, 2]
    assert count(tmp_path, "next") == 0
    assert json.loads((cell / "evaluations" / "now.json").read_text()) == {"attempts": 3}


def test_nothing_is_counted_where_nothing_is_lost(tmp_path, cell, monkeypatch):
    monkeypatch.delenv(runs.ATTEMPTS)
    assert [count(tmp_path) for _ in range(9)] == [0] * 9
    assert not (cell / "evaluations").exists()
    assert attempts.give_up_evaluation(tmp_path, "c", 9) is False


@pytest.mark.parametrize("text", ["", "[]", '{"attempts": null}', '{"attempts": "x"}'])
def test_a_damaged_count_begins_anew(tmp_path, cell, text):
    (cell / "evaluations").mkdir()
    (cell / "evaluations" / "now.json").write_text(text)
    assert [count(tmp_path) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(("lost", "given_up"), [(0, False), (1, False), (2, True), (3, True)])
def test_it_is_given_up_when_all_attempts_are_spent(tmp_path, cell, lost, given_up):
    assert attempts.give_up_evaluation(tmp_path, "c", lost) is given_up
    assert (cell / "failure.json").exists() is given_up


@pytest.mark.parametrize("name", ["result.json", "failure.json"])
def test_what_is_known_of_the_cell_stays(tmp_path, cell, name):
    write_json_atomic(cell / name, {"reason": "older"})
    assert attempts.give_up_evaluation(tmp_path, "c", 2) is True
    assert json.loads((cell / name).read_text()) == {"reason": "older"}
    assert {path.name for path in cell.iterdir()} == {"config.json", name}
