# SPDX-License-Identifier: Apache-2.0
"""Third step of a sweep, for each trial: evaluate it on the test set, and show its audit."""

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

    Like `train` it costs no other trial: a pod that was lost as often as the profile allows is
    recorded as the trial's failure (`attempts.fail_evaluation_after_lost_pods`).

    Args:
      trial: The trial's name.
      data_dir: Where the base data sets lie.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      metrics: What it reached, and its audit's numbers as audit_<name>, for the KFP UI.
      confusion: Its confusion matrix, for the KFP UI; no task reads it.
      audit: The labels that look wrong, for the KFP UI, or why nobody looked at them.

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
