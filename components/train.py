# SPDX-License-Identifier: Apache-2.0
"""Second step of a sweep, for each cell: train it."""

from components import component


@component
def train(cell: str, data_dir: str, results: str, results_namespace: str, run: str) -> str:
    """Trains one cell, or returns at once if the results root has it.

    A failure is recorded in the cell's folder and costs that cell alone: this task succeeds, or
    nothing after the loop would run. `verdict` makes the run fail at the end. So is a pod that was
    lost as often as the profile allows (`runs.give_up`).

    Args:
      cell: The cell's name.
      data_dir: Where the base data sets lie.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.

    Returns:
      The cell's name.
    """
    import os
    from pathlib import Path

    from ieg_core import mirror, runs, worker

    os.environ[runs.RUN_ID] = run
    with mirror.cell(runs.results_root(results, results_namespace, run), cell) as root:
        if not runs.give_up(root, cell, run):
            worker.run_step("train", cell, root, Path(data_dir))
    return cell
