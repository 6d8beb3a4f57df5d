# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: one cell, with what is written for those who follow it.

python followed_runs.py OUT.npz DATA_DIR RESULTS

trains it undisturbed, interrupted and resumed, and by the loop alone, without TensorBoard.
"""

import sys
from pathlib import Path

import numpy as np

from ieg_core.ownership import owned
from ieg_core.results import cell_folder
from ieg_core.runtime import Runtime, set_environment
from ieg_core.sweep import SweepRequest, plan

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


def stop_halfway(moment):
    if moment.step == INTERRUPTED_AT:
        raise InterruptedRunError


def main(out: str, data_dir: str, results: str) -> None:
    set_environment(RUNTIME)
    from ieg_core.training.cell import open_cell, train_here
    from ieg_core.training.loop import train

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
        (cell,) = plan(request).cells
        return root, cell

    def follow(name: str, watch) -> None:
        root, cell = planned(name)
        with owned(cell_folder(root, cell)) as claim:
            train_here(root, claim, Path(data_dir), RUNTIME, watch, lambda **told: None)

    follow("whole", lambda moment: None)
    try:
        follow("cut", stop_halfway)
    except InterruptedRunError:
        follow("cut", lambda moment: None)
    root, cell = planned("bare")
    _, config, overlay, source = open_cell(root, cell, Path(data_dir))
    with owned(cell_folder(root, cell)) as claim:
        train(config, overlay, source, claim, cell, RUNTIME, lambda moment: None)
    for name in ("whole", "cut", "bare"):
        (file,) = (Path(results) / name / "cells").glob("*/checkpoint/*.safetensors")
        states[name] = np.frombuffer(file.read_bytes(), np.uint8)
    np.savez(out, **states)


if __name__ == "__main__":
    main(*sys.argv[1:])
