# SPDX-License-Identifier: Apache-2.0
"""Counts the attempts of a run that lost their pod, so that they fail one trial, not the run.

Trainings are counted by their leases (`fail_after_lost_pods`). Evaluations are counted in files of
their own: an evaluation takes a lease only if there is something to compute, but its pod can be
lost in any case.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ieg_core.store import gcs
from ieg_core.store.layout import relative_trial, trial_folder
from ieg_core.store.leases import attempts, latest_attempt
from ieg_core.store.record import below
from ieg_core.store.records import (
    EvaluationRecord,
    FailureRecord,
    LeaseRecord,
    ResultRecord,
    TrainingRecord,
    record_failure,
)
from ieg_core.store.runs import ATTEMPTS


def count_evaluation(root: str, trial: str, run: str) -> int:
    """Records that a run starts to evaluate a trial; called before the evaluation does anything.

    The count is written directly to the results root, because the scratch copy of a bucket is
    uploaded only later.

    Args:
      root: The results root, including the namespace; a folder or gs://bucket/prefix.
      trial: The trial's name.
      run: The run's id.

    Returns:
      The number of earlier attempts; 0 if attempts are not counted (`runs.ATTEMPTS`).
    """
    if not _allowed():
        return 0
    place = below(root, relative_trial(trial))
    record, _ = EvaluationRecord.look(place, run)  # a damaged one restarts the count at 0
    before = record.attempts if record else 0
    EvaluationRecord(attempts=before + 1).write(place, run)
    return before


def fail_evaluation_after_lost_pods(root: Path, trial: str, lost: int) -> bool:
    """Records a trial as failed if the retry budget of its evaluation is exhausted.

    A trial that has a result or a recorded failure keeps it.

    Args:
      root: The results root, including the namespace.
      trial: The trial's name.
      lost: Number of attempts before this one.

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


def lost_trainings(root: str, trials: Iterable[str], run: str) -> int:
    """Counts the attempts of a run at the trials of one pod that did not end their lease.

    Args:
      root: The results root, including the namespace; a folder or gs://bucket/prefix.
      trials: The trials that share the pod.
      run: The run's id.
    """
    count = 0
    for trial in trials:
        place = below(root, relative_trial(trial))
        if isinstance(place, Path):
            numbers: Iterable[int] = range(1, latest_attempt(place) + 1)
        else:
            numbers = attempts(gcs.list_files(place, "leases/"))
        leases = (LeaseRecord.look(place, number)[0] for number in numbers)
        count += sum(
            lease is not None and lease.run == run and lease.ended is None for lease in leases
        )
    return count


def fail_after_lost_pods(root: Path, trial: str, lost: int) -> bool:
    """Records a trial as failed if the retry budget of its training is exhausted.

    A pod that runs out of memory or time, or loses its node, cannot record why it ended. KFP
    retries it, and after the last attempt would fail the whole loop, including the remaining
    trials and the report. The pod that finds the budget exhausted therefore does not train.

    Args:
      root: The results root, including the namespace.
      trial: The trial's name.
      lost: Number of attempts before this one (`lost_trainings`).

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
