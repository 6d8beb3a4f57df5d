# SPDX-License-Identifier: Apache-2.0
"""Counts the attempts of a run that lost their pod, so that they fail one trial, not the run.

Each pod counts itself before it does anything, since one that is lost records nothing more. KFP
counts the same pods: those that were lost before their training took its lease, too.
"""

import os
from pathlib import Path

from ieg_core.store.layout import relative_trial, trial_folder
from ieg_core.store.record import below
from ieg_core.store.records import (
    AttemptsRecord,
    FailureRecord,
    ResultRecord,
    TrainingRecord,
    record_failure,
)
from ieg_core.store.runs import ATTEMPTS


def count_attempt(root: str, step: str, trial: str, run: str) -> int:
    """Records that a run's pod starts a step; called before the step does anything.

    The count is written directly to the results root, because the scratch copy of a bucket is
    uploaded only later.

    Args:
      root: The results root, including the namespace; a folder or gs://bucket/prefix.
      step: "train" or "evaluate".
      trial: The trial's name; the first one of those that share the pod.
      run: The run's id.

    Returns:
      The number of earlier attempts; 0 if attempts are not counted (`runs.ATTEMPTS`).
    """
    if not _allowed():
        return 0
    place = below(root, relative_trial(trial))
    record, _ = AttemptsRecord.look(place, step, run)  # a damaged one restarts the count at 0
    before = record.attempts if record else 0
    AttemptsRecord(attempts=before + 1).write(place, step, run)
    return before


def fail_evaluation_after_lost_pods(root: Path, trial: str, lost: int) -> bool:
    """Records a trial as failed if the retry budget of its evaluation is exhausted.

    A trial that has a result or a recorded failure keeps it.

    Args:
      root: The results root, including the namespace.
      trial: The trial's name.
      lost: Number of attempts before this one (`count_attempt`).

    Returns:
      Whether the budget is exhausted, so that the evaluation must not start.
    """
    if not _allowed() or lost < _allowed():
        return False
    folder = trial_folder(root, trial)
    if ResultRecord.exists(folder) or FailureRecord.exists(folder):
        return True
    reason = (
        f"this run lost the pod of its evaluation {_times(lost)}: out of memory, over the time "
        "limit, a lost node, or the cause in the pod's log; check resources.evaluate and "
        "time_limit in the cluster file"
    )
    record_failure(folder, "evaluating", reason)
    return True


def _times(lost: int) -> str:
    return "once" if lost == 1 else f"{lost} times"


def _allowed() -> int:
    return int(os.environ.get(ATTEMPTS) or 0)


def fail_after_lost_pods(root: Path, trial: str, lost: int) -> bool:
    """Records a trial as failed if the retry budget of its training is exhausted.

    A pod that runs out of memory or time, or loses its node, cannot record why it ended. KFP
    retries it, and after the last attempt would fail the whole loop, including the remaining
    trials and the report. The pod that finds the budget exhausted therefore does not train.

    Args:
      root: The results root, including the namespace.
      trial: The trial's name.
      lost: Number of attempts before this one (`count_attempt`).

    Returns:
      Whether the trial was recorded as failed.
    """
    allowed = _allowed()
    folder = trial_folder(root, trial)
    done = ResultRecord.exists(folder) or TrainingRecord.exists(folder)
    if not allowed or lost < allowed or done:
        return False
    reason = (
        f"this run lost its pod {_times(lost)}: out of memory, over the time limit, or a lost "
        "node; check resources, time_limit and gpu.spot in the cluster file"
    )
    record_failure(folder, "training", reason)
    return True
