# SPDX-License-Identifier: Apache-2.0
import pytest

from ieg_core.sweep import worker
from tests.records import put


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Trains by a stand-in for the worker, which does what `steps` says; returns the arguments."""
    steps = {}

    def run_step(step, trial, results, data_dir, *, slot, echo):
        folder = results / "trials" / trial
        assert slot.threads >= 1
        assert not echo
        code, files = steps[step]
        for name, value in files.items():
            put(folder / name, **value)
        return code

    monkeypatch.setattr(worker, "run_step", run_step)
    steps["train"] = (0, {"training.json": {}})
    row = {"accuracy_ema_last": 0.935, "accuracy_last": 0.9, "steps_per_second": 30.0, "steps": 600}
    steps["evaluate"] = steps[worker.AGAIN] = (0, {"result.json": row})
    arguments = ["train", "--dataset", "digits_uniform_0.4", "--out", str(tmp_path / "runs")]
    return arguments, steps
