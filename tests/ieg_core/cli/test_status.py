# SPDX-License-Identifier: Apache-2.0
"""How far a sweep is, asked from another terminal."""

import json
import os
import time

import pytest

from ieg_core.cli import main, status
from ieg_core.errors import UserError
from ieg_core.store import layout
from ieg_core.sweep import worker
from ieg_core.sweep.progress import read_trial
from tests.records import put


@pytest.fixture
def root(tmp_path):
    now = time.time()
    trials = ["d-done-0", "d-runs-1", "d-dead-2", "d-bad-3", "d-next-4"]
    files = {
        "d-done-0/result.json": {"steps": 60, "steps_per_second": 9.0, "accuracy_ema_last": 0.9},
        "d-runs-1/progress.json": progress(now - 50, 30),
        "d-dead-2/progress.json": progress(now - 300, 20),
        "d-bad-3/progress.json": progress(now - 900, 10),
        "d-bad-3/failure.json": {"phase": "training", "reason": "the disk is full", "step": 10},
    }
    for trial in trials:
        write(tmp_path / "trials" / trial / "config.json", {"trial": trial})
    for name, value in files.items():
        write(tmp_path / "trials" / name, value)
    for age, sweep in enumerate(("new", "old")):
        path = tmp_path / "sweeps" / sweep / "plan.json"
        write(path, {"trials": trials if sweep == "new" else trials[:1]})
        os.utime(path, (now - 60 * age, now - 60 * age))
    return tmp_path


def write(path, value):
    put(path, **value)


def progress(updated, step):
    return {
        "phase": "training", "step": step, "num_steps": 60, "steps_per_second": 10.0,
        "accuracy_ema": 0.5, "updated": updated,
    }  # fmt: skip


def test_finished_trials_of_different_machines_are_told_apart(root, capsys):
    for trial, processor in (("d-done-0", "EPYC"), ("d-next-4", "EPYC"), ("d-dead-2", "Xeon")):
        here = {"device": "CPU", "processor": processor, "versions": {"numpy": "2"}}
        write(root / "trials" / trial / "result.json", here)
    assert main.main(["status", str(root)]) == 1
    assert "Finished trials differ in processor: EPYC (2), Xeon (1)\n" in capsys.readouterr().out


def test_states(root):
    found = [read_trial(root, name, 0.0, time.time()) for name in layout.find_trials(root)[2]]
    assert [trial.state for trial in found] == [
        *("finished", "training", "interrupted", "failed", "waiting")
    ]
    assert found[1].seconds_left == 3.0
    assert found[2].step == 20


def test_a_root_means_the_sweep_that_was_started_last(root):
    assert len(layout.find_trials(root)[2]) == 5
    assert layout.find_trials(root / "sweeps" / "old" / "report")[1:] == ("old", ["d-done-0"])
    assert layout.find_trials(root / "trials" / "d-dead-2") == (root, "", ["d-dead-2"])


def test_the_command(root, capsys):
    assert main.main(["status", str(root)]) == worker.EXIT_FAILED
    output = capsys.readouterr().out
    assert "1 of 5 trials finished, 1 running, 1 failed" in output
    assert "d-bad: failed" in output
    assert "the disk is full" in output
    assert "Nothing is running" not in output


def test_as_json(root, capsys):
    assert main.main(["status", str(root), "--json"]) == worker.EXIT_FAILED
    printed = json.loads(capsys.readouterr().out)
    assert printed["root"] == str(root)
    assert [trial["state"] for trial in printed["trials"]] == [
        *("finished", "training", "interrupted", "failed", "waiting")
    ]
    assert printed["trials"][1] == {
        "trial": "d-runs-1", "state": "training", "step": 30, "num_steps": 60,
        "steps_per_second": 10.0, "accuracy": 0.5, "reason": "", "seconds_left": 3.0,
    }  # fmt: skip
    assert printed["trials"][3]["reason"] == "the disk is full"
    assert main.main(["status", str(root), "--json", "--watch"]) == worker.EXIT_USER_ERROR


def test_nothing_runs(root, capsys):
    write(root / "trials" / "d-runs-1" / "progress.json", progress(time.time() - 999, 30))
    (root / "trials" / "d-bad-3" / "failure.json").unlink()
    assert main.main(["status", str(root)]) == 0
    assert "Nothing is running; 4 to go" in capsys.readouterr().out


@pytest.mark.parametrize("running", [True, False])
def test_who_watches_without_a_terminal_is_told_the_end_too(root, capsys, monkeypatch, running):
    looks = iter([running, False])

    def read(place, trial, since, now):
        if trial == "d-done-0":  # the first of each look
            write(place / "trials" / "d-runs-1" / "progress.json", progress(time.time(), 30))
            if not next(looks, False):
                write(place / "trials" / "d-runs-1" / "result.json", {"steps": 60})
        return read_trial(place, trial, since, now)

    monkeypatch.setattr(status, "read_trial", read)
    assert main.main(["status", str(root), "--watch"]) == worker.EXIT_FAILED
    output = capsys.readouterr().out
    assert "2 of 5 trials finished, 0 running, 1 failed" in output
    assert "d-bad: failed" in output
    assert "Nothing is running; 2 to go" in output


def test_watching_ends_when_nothing_runs(root, capsys):
    write(root / "trials" / "d-runs-1" / "result.json", {"steps": 60, "accuracy_ema_last": 0.8})
    assert main.main(["status", str(root), "--watch"]) == worker.EXIT_FAILED


def test_no_sweep(tmp_path, capsys):
    with pytest.raises(UserError, match="contains no results"):
        layout.find_trials(tmp_path)
    assert main.main(["status", str(tmp_path / "nowhere")]) == worker.EXIT_USER_ERROR
