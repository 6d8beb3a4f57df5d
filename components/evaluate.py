# SPDX-License-Identifier: Apache-2.0
"""Third step of a sweep, for each cell: evaluate it on the test set, and show its audit."""

from kfp.dsl import HTML, ClassificationMetrics, Metrics, Output

from components import component


@component
def evaluate(
    cell: str,
    data_dir: str,
    results: str,
    results_namespace: str,
    run: str,
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    audit: Output[HTML],
) -> str:
    """Evaluates one trained cell, or only shows it if the results root has its result.

    Like `train` it costs no other cell: a pod that was lost as often as the profile allows is
    recorded as the cell's failure (`attempts.give_up_evaluation`).

    Args:
      cell: The cell's name.
      data_dir: Where the base data sets lie.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      metrics: What it reached, and its audit's numbers as audit_<name>, for the KFP UI.
      confusion: Its confusion matrix, for the KFP UI; no task reads it.
      audit: The labels that look wrong, for the KFP UI, or why nobody looked at them.

    Returns:
      The cell's name.
    """
    from pathlib import Path

    from ieg_core import attempts, evaluate_task, mirror, runs

    place = runs.results_root(results, results_namespace, run)
    lost = attempts.count_evaluation(place, cell, run)
    with mirror.cell(place, cell) as root:
        shown = evaluate_task.evaluate(root, cell, Path(data_dir), lost)
    metrics.metadata.update(shown.metrics)
    if shown.class_names:
        confusion.log_confusion_matrix(shown.class_names, shown.confusion)
    shown.write(Path(metrics.path), Path(confusion.path), Path(audit.path))
    return cell
