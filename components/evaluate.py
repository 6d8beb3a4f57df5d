# SPDX-License-Identifier: Apache-2.0
"""Third step of a sweep, for each cell: evaluate it on the test set."""

from kfp.dsl import Metrics, Output

from components import component


@component
def evaluate(cell: str, data_dir: str, results: str, metrics: Output[Metrics]) -> str:
    """Evaluates one trained cell, or returns at once if the results root has its result.

    Args:
      cell: The cell's name.
      data_dir: Where the base data sets lie.
      results: The results root.
      metrics: What it reached, for the KFP UI.

    Returns:
      The cell's name.
    """
    import json
    from pathlib import Path

    from ieg_core import worker

    worker.run_step("evaluate", cell, Path(results), Path(data_dir))
    numbers = worker.finite_numbers(Path(results), cell)
    metrics.metadata.update(numbers)
    Path(metrics.path).write_text(json.dumps(numbers))
    return cell
