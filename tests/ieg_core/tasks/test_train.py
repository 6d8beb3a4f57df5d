# SPDX-License-Identifier: Apache-2.0
"""Real trainings of a pod's trials, side by side and one after the other."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ieg_core.store.layout import trial_folder
from ieg_core.store.records import FailureRecord
from ieg_core.store.runs import AT_ONCE
from ieg_core.sweep import plan as sweep
from ieg_core.sweep.request import SweepRequest
from ieg_core.training import checkpoint
from tests.integration.test_survival import ROOT, outcome

SOUND = ("l2r", "supervised", "mixup")


def plan(root):
    """Plans a sound trial of each method, and one that diverges; returns their names."""
    common = {"dataset": "digits_uniform_0.4", "steps": 200, "results": str(root)}
    settings = ("evaluations=3", "batch_size=50")
    sound = SweepRequest(**common, methods=SOUND, settings=settings)
    settings += ("optimizer.learning_rate=1e30",)
    diverging = SweepRequest(**common, methods=("supervised",), settings=settings)
    return [*sweep.plan(sound).trials, *sweep.plan(diverging).trials]


def start(root, trials, at_once):
    """Starts what a pod runs, in a process group of its own."""
    program = (
        "from pathlib import Path; from ieg_core.tasks.train import train;"
        f"train({str(root)!r}, {trials!r}, Path('data'), 'run')"
    )
    settings = {"IEG_CHECKPOINT_SECONDS": "0", "TF_CPP_MIN_LOG_LEVEL": "3", AT_ONCE: str(at_once)}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(root, trials, at_once):
    process = start(root, trials, at_once)
    output, _ = process.communicate(timeout=3600)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_trials_at_once_end_as_one_after_the_other_and_fail_alone(tmp_path):
    trials = plan(tmp_path / "one")
    assert plan(tmp_path / "at-once") == trials
    finish(tmp_path / "one", trials, 1)
    root = tmp_path / "at-once"
    process = start(root, trials, 3)
    deadline = time.monotonic() + 3600
    while not checkpoint.saved_attempts(trial_folder(root, trials[0])):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # the pod; its children see that and end
    process.communicate()
    finish(root, trials, 3)
    for trial in trials[: len(SOUND)]:
        assert outcome(root, trial) == outcome(tmp_path / "one", trial)
    reasons = [
        FailureRecord.read(trial_folder(each, trials[-1])).reason
        for each in (tmp_path / "one", root)
    ]
    assert reasons[0] == reasons[1]
    assert "not finite" in reasons[0]
