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
    import json
    from pathlib import Path

    from ieg_core import attempts, mirror, runs, worker
    from ieg_core.audit.shown import page_and_measures
    from ieg_core.report import shown
    from ieg_core.results import cell_folder

    place = runs.results_root(results, results_namespace, run)
    lost = attempts.count_evaluation(place, cell, run)
    with mirror.cell(place, cell) as root:
        given_up = attempts.give_up_evaluation(root, cell, lost)
        if not given_up:
            worker.run_step("evaluate", cell, root, Path(data_dir))
        page, audited = page_and_measures(
            cell_folder(root, cell), Path(data_dir), may_audit=not given_up
        )
        metrics.metadata.update(shown.metrics(root, cell) | audited)
        names, counts = shown.confusion(root, cell)
    if names:
        confusion.log_confusion_matrix(names, counts)
    Path(metrics.path).write_text(json.dumps(metrics.metadata))
    Path(audit.path).write_text(page, encoding="utf-8")
    Path(confusion.path).write_text(json.dumps({"classes": names, "counts": counts}))
    return cell
