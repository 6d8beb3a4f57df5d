# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from ieg_core import ownership, runs
from ieg_core.errors import UserError
from ieg_core.results import write_json_atomic


@pytest.mark.parametrize(
    ("results", "namespace", "expected"),
    [
        ("/results", "", "/results"),
        ("/results/", "weekly", "/results/weekly"),
        ("gs://bucket/a", "weekly/{run}", "gs://bucket/a/weekly/1b-2c"),
        ("runs", "{run}-x", "runs/1b-2c-x"),
    ],
)
def test_a_namespace_is_a_part_of_the_results_root(results, namespace, expected):
    assert runs.results_root(results, namespace, "1b-2c") == expected


@pytest.mark.parametrize("namespace", ["..", "a/../b", "/a", "a/", "a b", "a//b", "gs://x", "."])
def test_a_namespace_cannot_leave_the_root(namespace):
    with pytest.raises(UserError, match="results_namespace="):
        runs.results_root("/results", namespace, "1")


def test_parts_are_dealt_out_and_make_the_whole():
    cells = ["a", "b", "c", "d", "e"]
    assert runs.part_of(cells, 1, 1, most=5) == cells
    assert runs.part_of(cells, 1, 2, most=5) == ["a", "c", "e"]
    assert runs.part_of(cells, 2, 2, most=5) == ["b", "d"]


@pytest.mark.parametrize(
    ("part", "parts", "message"),
    [
        (0, 1, "part=0 of parts=1: expected a part from 1 to 1"),
        (3, 2, "part=3 of parts=2: expected a part from 1 to 2"),
        (1, 0, "part=1 of parts=0: expected a part from 1 to 1"),
        (1, 6, "parts=6: the sweep has 5 cells"),
        (1, 1, "5 cells in one run, at most 2 are possible: start parts=3 runs"),
    ],
)
def test_a_part_that_cannot_be_is_refused(part, parts, message):
    with pytest.raises(UserError, match=message):
        runs.part_of(["a", "b", "c", "d", "e"], part, parts, most=2)


def test_a_run_with_a_label_is_written_down(tmp_path):
    runs.write_run(tmp_path, "digits-20260101-120000-0f3a", "s", ["a", "b"], 1, 2)
    assert json.loads((tmp_path / "runs" / "digits-20260101-120000-0f3a.json").read_text()) == {
        "schema": 1,
        "sweep": "s",
        "cells": ["a", "b"],
        "part": 1,
        "parts": 2,
    }


def test_a_run_without_a_label_is_not(tmp_path):
    runs.write_run(tmp_path, "", "s", ["a"], 1, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", ["../x", "a/b", "a b", "-"])
def test_a_label_is_a_plain_name(tmp_path, label):
    with pytest.raises(UserError, match="run_label="):
        runs.write_run(tmp_path, label, "s", ["a"], 1, 1)


def claims(folder, *records):
    for number, record in enumerate(records, 1):
        write_json_atomic(folder / "claims" / f"{number:06d}.json", record)


@pytest.fixture
def cell(tmp_path):
    folder = tmp_path / "cells" / "c"
    write_json_atomic(folder / "config.json", {})
    return folder


LOST, ENDED = {"run": "now"}, {"run": "now", "ended": 5.0}
BEFORE = {"run": "before"}


@pytest.mark.parametrize(
    ("records", "given_up"),
    [
        ([], False),
        ([LOST], False),
        ([LOST, LOST], True),
        ([LOST, ENDED, LOST], True),
        ([LOST, ENDED, ENDED], False),
        ([BEFORE, BEFORE, LOST], False),
        ([{}, LOST], False),
    ],
)
def test_a_cell_is_given_up_when_this_run_has_lost_its_pod_too_often(
    tmp_path, cell, monkeypatch, records, given_up
):
    monkeypatch.setenv(runs.ATTEMPTS, "2")
    claims(cell, *records)
    write_json_atomic(cell / "progress.json", {"step": 70})
    assert runs.give_up(tmp_path, "c", "now") is given_up
    assert (cell / "failure.json").exists() is given_up
    if given_up:
        failure = json.loads((cell / "failure.json").read_text())
        assert failure["reason"].startswith("this run lost its pod 2 times: killed for memory")
        assert failure["step"] == 70
    # The run that resumes it has all its attempts.
    assert runs.give_up(tmp_path, "c", "next") is False


@pytest.mark.parametrize("name", ["result.json", "training.json"])
def test_a_trained_cell_is_not_given_up(tmp_path, cell, monkeypatch, name):
    monkeypatch.setenv(runs.ATTEMPTS, "1")
    claims(cell, LOST)
    write_json_atomic(cell / name, {})
    assert runs.give_up(tmp_path, "c", "now") is False


def test_where_attempts_are_not_counted_no_cell_is_given_up(tmp_path, cell, monkeypatch):
    monkeypatch.delenv(runs.ATTEMPTS, raising=False)
    claims(cell, *[LOST] * 9)
    assert runs.give_up(tmp_path, "c", "now") is False


def test_a_claim_damaged_by_the_end_of_its_pod_is_none(tmp_path, cell, monkeypatch):
    monkeypatch.setenv(runs.ATTEMPTS, "1")
    (cell / "claims").mkdir()
    (cell / "claims" / "000001.json").write_text("")
    assert runs.give_up(tmp_path, "c", "now") is False


def test_an_attempt_that_is_killed_counts_and_one_that_ends_does_not(tmp_path, cell, monkeypatch):
    monkeypatch.setenv(runs.ATTEMPTS, "1")
    monkeypatch.setenv(runs.RUN_ID, "now")
    with ownership.owned(cell):
        pass
    assert runs.give_up(tmp_path, "c", "now") is False
    ownership.take(cell, 2)  # and never ended
    assert runs.give_up(tmp_path, "c", "now") is True
