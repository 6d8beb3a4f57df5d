# SPDX-License-Identifier: Apache-2.0
import json
import os
import threading

import pytest

from components.train import train
from ieg_core.store import lost_pods, runs
from ieg_core.sweep import slots, worker
from tests.components.calls import root

TRIAL = "digits_uniform_0.8-l2r-seed0-0123456789ab"


def run_train(tmp_path, trials):
    return train.python_func(trials=trials, data_dir="data", **root(tmp_path))


@pytest.mark.parametrize("code", [0, 1, -9])
def test_train_succeeds_even_where_its_trial_fails(tmp_path, monkeypatch, code):
    calls = []
    monkeypatch.setattr(worker, "run_step", lambda *args: calls.append(args) or code)
    assert run_train(tmp_path, TRIAL) == TRIAL
    ((step, trial, results, _),) = calls
    assert (step, trial, results) == ("train", TRIAL, tmp_path)


@pytest.fixture
def sharing(monkeypatch):
    """Forgets what a task that shares its GPU puts into the environment."""
    for name in slots.shared_gpu_environment(2):
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize("at_once", ["1", "3"])
def test_the_trials_of_a_pod_share_its_attempts(tmp_path, monkeypatch, sharing, at_once):
    monkeypatch.setenv(runs.ATTEMPTS, "2")
    monkeypatch.setenv(runs.AT_ONCE, at_once)
    calls = []

    def run_step(step, trial, *rest):
        calls.append(trial)
        if trial == "b":
            raise SystemExit(137)  # as if the pod were lost

    monkeypatch.setattr(worker, "run_step", run_step)
    for name in "abc":
        (tmp_path / "trials" / name).mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(SystemExit):
            run_train(tmp_path, "a b c")
    assert not list(tmp_path.glob("trials/*/failure.json"))
    calls.clear()
    assert run_train(tmp_path, "a b c") == "a b c"
    assert calls == []
    for trial in "abc":
        failure = json.loads((tmp_path / "trials" / trial / "failure.json").read_text())
        assert failure["reason"].startswith("this run lost its pod 2 times")
    assert lost_pods.count_attempt(str(tmp_path), "train", "a", "resumed") == 0


def test_the_trials_of_a_pod_train_at_once_and_fail_alone(tmp_path, monkeypatch, sharing):
    """Two of three meet at the barrier; the third one begins when one of them has ended."""
    monkeypatch.setenv(runs.AT_ONCE, "2")
    barrier, calls = threading.Barrier(2), []

    def run_step(step, trial, results, data_dir):
        if trial != "c":
            barrier.wait(timeout=60)
        calls.append(trial)
        return -9

    monkeypatch.setattr(worker, "run_step", run_step)
    assert run_train(tmp_path, "a b c") == "a b c"
    assert set(calls) == set("abc")
    assert os.environ["XLA_CLIENT_MEM_FRACTION"] == "0.3750"
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
