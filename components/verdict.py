# SPDX-License-Identifier: Apache-2.0
"""Last step of a sweep: fail the run if a cell failed, now that the report is written."""

from kfp.dsl import Input, Markdown

from components import component


@component
def verdict(
    failures: str,
    plan: Input[Markdown],
    results: str,
    results_namespace: str,
    run: str,
    schedule: str,
    tolerance: float,
    accepted: str,
) -> str:
    """Fails if a cell did not finish.

    Args:
      failures: Which cells of this run did not finish and why; "" if all did.
      plan: The plan that `prepare` wrote; its metadata name the sweep.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      schedule: Name of the schedule that started this run; empty: none did.
      tolerance: Points of accuracy, per cent, by which a result may differ; negative: any.
      accepted: Where the last accepted run's results.json lies; empty: nowhere.

    Returns:
      "every cell finished".

    Raises:
      RuntimeError: A cell did not finish.
    """
    if failures:
        raise RuntimeError(f"cells did not finish: {failures}")
    return "every cell finished"
