# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from ieg_core.errors import UserError
from ieg_core.store import runs, seal


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
    trials = ["a", "b", "c", "d", "e"]
    assert runs.part_of(trials, 1, 1, most=5) == trials
    assert runs.part_of(trials, 1, 2, most=5) == ["a", "c", "e"]
    assert runs.part_of(trials, 2, 2, most=5) == ["b", "d"]


@pytest.mark.parametrize(
    ("part", "parts", "message"),
    [
        (0, 1, "part=0 of parts=1: expected a part from 1 to 1"),
        (3, 2, "part=3 of parts=2: expected a part from 1 to 2"),
        (1, 0, "part=1 of parts=0: expected a part from 1 to 1"),
        (1, 6, "parts=6: expected at most 5, the number of trials"),
        (1, 1, "5 trials in one run, expected at most 2: start parts=3 runs"),
    ],
)
def test_a_part_that_cannot_be_is_refused(part, parts, message):
    with pytest.raises(UserError, match=message):
        runs.part_of(["a", "b", "c", "d", "e"], part, parts, most=2)


def test_a_run_with_a_label_is_written_down(tmp_path):
    runs.write_run(tmp_path, "digits-20260101-120000-0f3a", "s", ["a", "b"], 1, 2)
    path = tmp_path / "runs" / "digits-20260101-120000-0f3a.json"
    assert seal.unseal(json.loads(path.read_text())) == {
        "schema": 1,
        "sweep": "s",
        "trials": ["a", "b"],
        "part": 1,
        "parts": 2,
    }


def test_a_run_without_a_label_is_not(tmp_path):
    runs.write_run(tmp_path, "", "s", ["a"], 1, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("trials_per_pod", "pods"),
    [
        (1, ["a", "b", "c", "d", "e"]),
        (2, ["a d", "b e", "c"]),
        (4, ["a c e", "b d"]),
        (9, ["a b c d e"]),
    ],
)
def test_trials_share_as_few_pods_as_possible(trials_per_pod, pods):
    assert runs.share_pods(["a", "b", "c", "d", "e"], trials_per_pod) == pods


@pytest.mark.parametrize("label", ["../x", "a/b", "a b", "-"])
def test_a_label_is_a_plain_name(tmp_path, label):
    with pytest.raises(UserError, match="run_label="):
        runs.write_run(tmp_path, label, "s", ["a"], 1, 1)
