# SPDX-License-Identifier: Apache-2.0
"""Second step of a sweep, for each cell: train it."""

from components import component


@component
def train(cell: str, data_dir: str, results: str) -> str:
    """Trains one cell, or returns at once if the results root has it.

    A failure is recorded in the cell's folder and costs that cell alone: this task succeeds, or
    nothing after the loop would run. `verdict` makes the run fail at the end.

    Args:
      cell: The cell's name.
      data_dir: Where the base data sets lie.
      results: The results root.

    Returns:
      The cell's name.
    """
    from pathlib import Path

    from ieg_core import worker

    worker.run_step("train", cell, Path(results), Path(data_dir))
    return cell
