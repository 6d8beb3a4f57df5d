# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: one trial, with what is written for those who follow
it.

python followed_runs.py OUT.npz DATA_DIR RESULTS

trains it undisturbed, interrupted and resumed, and by the loop alone, without TensorBoard.
"""

import sys
from pathlib import Path

import numpy as np

from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.store.layout import trial_folder
from ieg_core.store.leases import owned
from ieg_core.sweep.plan import plan
from ieg_core.sweep.request import SweepRequest

RUNTIME = Runtime(threads=1, steps_per_execution=25, checkpoint_seconds=0.0)
STEPS, INTERRUPTED_AT = 150, 75
SETTINGS = (
    "images.size=8",
    "images.eval_sets=photos,drawings",
    "batch_size=12",
    "evaluations=3",
    "optimizer.learning_rate=0.01",
)


class InterruptedRunError(Exception):
    pass


def stop_halfway(report):
    if report.step == INTERRUPTED_AT:
        raise InterruptedRunError


def main(out: str, data_dir: str, results: str) -> None:
    set_environment(RUNTIME)
    from ieg_core.training.loop import train
    from ieg_core.training.trial import open_trial, train_here
    from tests.ieg_core.training.compiled_once import compile_once

    compile_once()
    states = {}

    def planned(name: str) -> tuple[Path, str]:
        root = Path(results) / name
        network = "tests.ieg_core.models.nets_of_mine:small"
        request = SweepRequest(
            "folder_uniform",
            (0.4,),
            ("supervised",),
            steps=STEPS,
            network=network,
            settings=SETTINGS,
            data_dir=data_dir,
            results=str(root),
        )
        (trial,) = plan(request).trials
        return root, trial

    def follow(name: str, on_step) -> None:
        root, trial = planned(name)
        with owned(trial_folder(root, trial)) as lease:
            train_here(root, lease, Path(data_dir), RUNTIME, on_step, lambda **changes: None)

    follow("whole", lambda report: None)
    try:
        follow("cut", stop_halfway)
    except InterruptedRunError:
        follow("cut", lambda report: None)
    root, trial = planned("bare")
    _, config, label_set, source = open_trial(root, trial, Path(data_dir))
    with owned(trial_folder(root, trial)) as lease:
        train(config, label_set, source, lease, trial, RUNTIME, lambda report: None)
    for name in ("whole", "cut", "bare"):
        (file,) = (Path(results) / name / "trials").glob("*/checkpoint/*.safetensors")
        states[name] = np.frombuffer(file.read_bytes(), np.uint8)
    np.savez(out, **states)


if __name__ == "__main__":
    main(*sys.argv[1:])
