# SPDX-License-Identifier: Apache-2.0
"""Third step of a sweep, for each trial: evaluates it on the test set and shows its audit."""

from kfp.dsl import HTML, ClassificationMetrics, Metrics, Output

from components import component


@component
def evaluate(
    trial: str,
    data_dir: str,
    results: str,
    results_namespace: str,
    run: str,
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    audit: Output[HTML],
) -> str:
    """Evaluates one trained trial, or only shows it if the results root has its result.

    Like `train`, it does not affect other trials: when the retry budget for lost pods is exhausted,
    the trial is recorded as failed (`lost_pods.count_evaluation`).

    Args:
      trial: The trial's name.
      data_dir: Folder of the base data sets.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      metrics: Its results, and its audit's figures as audit_<name>, for the KFP UI.
      confusion: Its confusion matrix, for the KFP UI; no task reads it.
      audit: The labels that are probably wrong, or why there was no audit, for the KFP UI.

    Returns:
      The trial's name.
    """
    from pathlib import Path

    from ieg_core.store import lost_pods, mirror, runs
    from ieg_core.tasks import evaluate as evaluate_task

    place = runs.results_root(results, results_namespace, run)
    lost = lost_pods.count_evaluation(place, trial, run)
    with mirror.trial(place, trial) as root:
        shown = evaluate_task.evaluate(root, trial, Path(data_dir), lost)
    metrics.metadata.update(shown.metrics)
    if shown.class_names:
        confusion.log_confusion_matrix(shown.class_names, shown.confusion)
    shown.write(Path(metrics.path), Path(confusion.path), Path(audit.path))
    return trial
