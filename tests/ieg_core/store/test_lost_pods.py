# SPDX-License-Identifier: Apache-2.0

import pytest

from ieg_core.host.files import write_json_atomic
from ieg_core.store import lost_pods, runs
from ieg_core.store.records import (
    AttemptsRecord,
    FailureRecord,
    ProgressRecord,
    ResultRecord,
    TrainingRecord,
)
from tests.records import example


@pytest.fixture
def trial(tmp_path, monkeypatch):
    monkeypatch.setenv(runs.ATTEMPTS, "2")
    folder = tmp_path / "trials" / "c"
    write_json_atomic(folder / "config.json", {})
    return folder


def count(tmp_path, run="now", step="train"):
    return lost_pods.count_attempt(str(tmp_path), step, "c", run)


def test_each_step_of_a_run_counts_its_own_attempts(tmp_path, trial):
    assert [count(tmp_path) for _ in range(3)] == [0, 1, 2]
    assert count(tmp_path, "next") == count(tmp_path, step="evaluate") == 0
    assert AttemptsRecord.read(trial, "train", "now").attempts == 3


def test_nothing_is_counted_where_nothing_is_lost(tmp_path, trial, monkeypatch):
    monkeypatch.delenv(runs.ATTEMPTS)
    assert [count(tmp_path) for _ in range(9)] == [0] * 9
    assert not (trial / "attempts").exists()
    assert lost_pods.fail_after_lost_pods(tmp_path, "c", 9) is False
    assert lost_pods.fail_evaluation_after_lost_pods(tmp_path, "c", 9) is False


@pytest.mark.parametrize("text", ["", "[]", '{"attempts": null}', '{"attempts": "x"}'])
def test_a_damaged_count_begins_anew(tmp_path, trial, text):
    (trial / "attempts").mkdir()
    (trial / "attempts" / "train-now.json").write_text(text)
    assert [count(tmp_path) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(("lost", "given_up"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_training_is_given_up_when_all_attempts_are_spent(tmp_path, trial, lost, given_up):
    example(ProgressRecord, step=70).write(trial)
    assert lost_pods.fail_after_lost_pods(tmp_path, "c", lost) is given_up
    failure = FailureRecord.read(trial)
    assert bool(failure) is given_up
    if failure:
        assert failure.reason.startswith(f"this run lost its pod {lost} times: out of memory")
        assert failure.step == 70


@pytest.mark.parametrize("kind", [ResultRecord, TrainingRecord])
def test_a_trained_trial_is_not_given_up(tmp_path, trial, kind):
    example(kind).write(trial)
    assert lost_pods.fail_after_lost_pods(tmp_path, "c", 2) is False


@pytest.mark.parametrize(("lost", "given_up"), [(0, False), (1, False), (2, True), (3, True)])
def test_an_evaluation_is_given_up_when_all_attempts_are_spent(tmp_path, trial, lost, given_up):
    assert lost_pods.fail_evaluation_after_lost_pods(tmp_path, "c", lost) is given_up
    assert (trial / "failure.json").exists() is given_up


@pytest.mark.parametrize("kind", [ResultRecord, FailureRecord])
def test_what_is_known_of_the_trial_stays(tmp_path, trial, kind):
    example(kind, reason="older").write(trial)
    assert lost_pods.fail_evaluation_after_lost_pods(tmp_path, "c", 2) is True
    assert kind.read(trial).reason == "older"
    assert {path.name for path in trial.iterdir()} == {"config.json", kind.NAME}
