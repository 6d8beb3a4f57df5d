# SPDX-License-Identifier: Apache-2.0
"""Second step of a sweep, for each trial: train it."""

from components import component


@component
def train(trial: str, data_dir: str, results: str, results_namespace: str, run: str) -> str:
    """Trains one trial, or returns at once if the results root has it.

    A failure is recorded in the trial's folder and costs that trial alone: this task succeeds, or
    nothing after the loop would run. `check_results` makes the run fail at the end. So is a pod
    that was lost as often as the profile allows (`runs.fail_after_lost_pods`).

    Args:
      trial: The trial's name.
      data_dir: Where the base data sets lie.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.

    Returns:
      The trial's name.
    """
    import os
    from pathlib import Path

    from ieg_core.store import lost_pods, mirror, runs
    from ieg_core.sweep import worker

    os.environ[runs.RUN_ID] = run
    with mirror.trial(runs.results_root(results, results_namespace, run), trial) as root:
        if not lost_pods.fail_after_lost_pods(root, trial, run):
            worker.run_step("train", trial, root, Path(data_dir))
    return trial
