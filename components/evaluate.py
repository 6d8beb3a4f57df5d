# SPDX-License-Identifier: Apache-2.0
"""Third step of a sweep, for each pod's trials: evaluates them and shows their audits."""

from kfp.dsl import HTML, ClassificationMetrics, Metrics, Output

from components import component


@component
def evaluate(
    trials: str,
    data_dir: str,
    results: str,
    results_namespace: str,
    run: str,
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    audit: Output[HTML],
) -> str:
    """Evaluates the trained trials of a pod, or only shows those that have a result.

    Like `train`, it does not affect other trials: when the retry budget for lost pods is exhausted,
    the trial is recorded as failed (`lost_pods.count_attempt`).

    Args:
      trials: The trials' names, separated by blanks.
      data_dir: Folder of the base data sets.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      metrics: Results, and the audit's figures as audit_<name>, for the KFP UI.
      confusion: The confusion matrix of a single trial, for the KFP UI; no task reads it.
      audit: The labels that are probably wrong, or why there was no audit, for the KFP UI.

    Returns:
      The trials' names, as they came.
    """
    from pathlib import Path

    from ieg_core.store import lost_pods, mirror, runs
    from ieg_core.tasks import evaluate as evaluate_task

    place = runs.results_root(results, results_namespace, run)
    names = trials.split()
    lost = lost_pods.count_attempt(place, "evaluate", names[0], run)
    shown = {}
    for trial in names:
        with mirror.trial(place, trial) as root:
            shown[trial] = evaluate_task.evaluate(root, trial, Path(data_dir), lost)
    artifacts = evaluate_task.join(shown)
    metrics.metadata.update(artifacts.metrics)
    if artifacts.class_names:
        confusion.log_confusion_matrix(artifacts.class_names, artifacts.confusion)
    artifacts.write(Path(metrics.path), Path(confusion.path), Path(audit.path))
    return trials
