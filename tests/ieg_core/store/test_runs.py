# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from ieg_core.errors import UserError
from ieg_core.host.files import write_json_atomic
from ieg_core.store import leases, lost_pods, runs, seal
from ieg_core.store.records import LeaseRecord, ProgressRecord, ResultRecord, TrainingRecord
from tests.records import example


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


def write_leases(folder, *records):
    for number, record in enumerate(records, 1):
        example(LeaseRecord, **record).write(folder, number)


@pytest.fixture
def trial(tmp_path):
    folder = tmp_path / "trials" / "c"
    write_json_atomic(folder / "config.json", {})
    return folder


def fail_after_lost_pods(root, run):
    return lost_pods.fail_after_lost_pods(
        root, "c", lost_pods.lost_trainings(str(root), ["c"], run)
    )


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
def test_a_trial_is_given_up_when_this_run_has_lost_its_pod_too_often(
    tmp_path, trial, monkeypatch, records, given_up
):
    monkeypatch.setenv(runs.ATTEMPTS, "2")
    write_leases(trial, *records)
    example(ProgressRecord, step=70).write(trial)
    assert fail_after_lost_pods(tmp_path, "now") is given_up
    assert (trial / "failure.json").exists() is given_up
    if given_up:
        failure = json.loads((trial / "failure.json").read_text())
        assert failure["reason"].startswith("this run lost its pod 2 times: out of memory")
        assert failure["step"] == 70
    # The run that resumes it has all its attempts.
    assert fail_after_lost_pods(tmp_path, "next") is False


@pytest.mark.parametrize("kind", [ResultRecord, TrainingRecord])
def test_a_trained_trial_is_not_given_up(tmp_path, trial, monkeypatch, kind):
    monkeypatch.setenv(runs.ATTEMPTS, "1")
    write_leases(trial, LOST)
    example(kind).write(trial)
    assert fail_after_lost_pods(tmp_path, "now") is False


def test_where_attempts_are_not_counted_no_trial_is_given_up(tmp_path, trial, monkeypatch):
    monkeypatch.delenv(runs.ATTEMPTS, raising=False)
    write_leases(trial, *[LOST] * 9)
    assert fail_after_lost_pods(tmp_path, "now") is False


def test_a_lease_damaged_by_the_end_of_its_pod_is_none(tmp_path, trial, monkeypatch):
    monkeypatch.setenv(runs.ATTEMPTS, "1")
    (trial / "leases").mkdir()
    (trial / "leases" / "000001.json").write_text("")
    assert fail_after_lost_pods(tmp_path, "now") is False


def test_an_attempt_that_is_killed_counts_and_one_that_ends_does_not(tmp_path, trial, monkeypatch):
    monkeypatch.setenv(runs.ATTEMPTS, "1")
    monkeypatch.setenv(runs.RUN_ID, "now")
    with leases.owned(trial):
        pass
    assert fail_after_lost_pods(tmp_path, "now") is False
    leases.take(trial, 2)  # and never ended
    assert fail_after_lost_pods(tmp_path, "now") is True
