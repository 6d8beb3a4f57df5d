# SPDX-License-Identifier: Apache-2.0
"""Second step of a sweep, for each pod's trials: trains them."""

from components import component


@component
def train(trials: str, data_dir: str, results: str, results_namespace: str, run: str) -> str:
    """Trains the trials of a pod, except those that are trained already.

    A failure is recorded in the trial's folder and affects only that trial: this task succeeds,
    otherwise nothing after the loop would run, and `check_results` fails the run at the end. The
    same holds when the retry budget for lost pods is exhausted (`lost_pods.fail_after_lost_pods`).

    Args:
      trials: The trials' names, separated by blanks.
      data_dir: Folder of the base data sets.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.

    Returns:
      The trials' names, as they came.
    """
    from pathlib import Path

    from ieg_core.store import runs
    from ieg_core.tasks import train as train_task

    place = runs.results_root(results, results_namespace, run)
    train_task.train(place, trials.split(), Path(data_dir), run)
    return trials
