# SPDX-License-Identifier: Apache-2.0

import pytest

from ieg_core.host.files import write_json_atomic
from ieg_core.store import lost_pods, runs
from ieg_core.store.records import EvaluationRecord, FailureRecord, ResultRecord
from tests.records import example


@pytest.fixture
def trial(tmp_path, monkeypatch):
    monkeypatch.setenv(runs.ATTEMPTS, "2")
    folder = tmp_path / "trials" / "c"
    write_json_atomic(folder / "config.json", {})
    return folder


def count(tmp_path, run="now"):
    return lost_pods.count_evaluation(str(tmp_path), "c", run)


def test_each_run_counts_its_own_attempts(tmp_path, trial):
    assert [count(tmp_path) for _ in range(3)] == [0, 1, 2]
    assert count(tmp_path, "next") == 0
    assert EvaluationRecord.read(trial, "now").attempts == 3


def test_nothing_is_counted_where_nothing_is_lost(tmp_path, trial, monkeypatch):
    monkeypatch.delenv(runs.ATTEMPTS)
    assert [count(tmp_path) for _ in range(9)] == [0] * 9
    assert not (trial / "evaluations").exists()
    assert lost_pods.fail_evaluation_after_lost_pods(tmp_path, "c", 9) is False


@pytest.mark.parametrize("text", ["", "[]", '{"attempts": null}', '{"attempts": "x"}'])
def test_a_damaged_count_begins_again(tmp_path, trial, text):
    (trial / "evaluations").mkdir()
    (trial / "evaluations" / "now.json").write_text(text)
    assert [count(tmp_path) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(("lost", "given_up"), [(0, False), (1, False), (2, True), (3, True)])
def test_it_is_given_up_when_all_attempts_are_spent(tmp_path, trial, lost, given_up):
    assert lost_pods.fail_evaluation_after_lost_pods(tmp_path, "c", lost) is given_up
    assert (trial / "failure.json").exists() is given_up


@pytest.mark.parametrize("kind", [ResultRecord, FailureRecord])
def test_what_is_known_of_the_trial_stays(tmp_path, trial, kind):
    example(kind, reason="older").write(trial)
    assert lost_pods.fail_evaluation_after_lost_pods(tmp_path, "c", 2) is True
    assert kind.read(trial).reason == "older"
    assert {path.name for path in trial.iterdir()} == {"config.json", kind.NAME}
