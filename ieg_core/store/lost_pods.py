# SPDX-License-Identifier: Apache-2.0
"""How often a run has begun to evaluate a trial, so that lost pods cost that trial alone.

Trainings count by their leases (`runs.fail_after_lost_pods`). An evaluation leases a trial only if
there is something to compute, but its pod can be lost without that too.
"""

import os
from pathlib import Path

from ieg_core.store.layout import relative_trial, trial_folder
from ieg_core.store.leases import latest_attempt
from ieg_core.store.records import (
    EvaluationRecord,
    FailureRecord,
    LeaseRecord,
    ResultRecord,
    TrainingRecord,
    below,
    record_failure,
)
from ieg_core.store.runs import ATTEMPTS


def count_evaluation(root: str, trial: str, run: str) -> int:
    """Counts a run's attempt at evaluating a trial, before it does anything else.

    Written where all pods see it: of a bucket, a pod's local copy goes up only later.

    Args:
      root: The results root, namespace included; a folder or gs://bucket/prefix.
      trial: The trial.
      run: The run's id.

    Returns:
      How many there were before; 0 where attempts are not counted (`runs.ATTEMPTS`).
    """
    if not _allowed():
        return 0
    place = below(root, relative_trial(trial))
    found, _ = EvaluationRecord.look(place, run)  # one that is damaged counts again from 0
    before = found.attempts if found else 0
    EvaluationRecord(attempts=before + 1).write(place, run)
    return before


def fail_evaluation_after_lost_pods(root: Path, trial: str, lost: int) -> bool:
    """Records the failure of a trial whose evaluation this run has lost as often as it may.

    A trial that has its result, or the reason why it has none, keeps it.

    Args:
      root: The results root, namespace included.
      trial: The trial.
      lost: Attempts before this one.

    Returns:
      Whether the evaluation was given up.
    """
    if not _allowed() or lost < _allowed():
        return False
    folder = trial_folder(root, trial)
    if ResultRecord.exists(folder) or FailureRecord.exists(folder):
        return True
    reason = (
        f"this run lost the pod of its evaluation {_times(lost)}: killed for memory, out of "
        "time, without its node or for what its log says; see resources.evaluate and time_limit "
        "in the cluster file"
    )
    record_failure(folder, "evaluating", reason)
    return True


def _times(lost: int) -> str:
    return "once" if lost == 1 else f"{lost} times"


def _allowed() -> int:
    return int(os.environ.get(ATTEMPTS) or 0)


def fail_after_lost_pods(root: Path, trial: str, run: str) -> bool:
    """Records the failure of a trial whose pod this run has lost as often as it may.

    A pod that is out of memory, out of time or without its node takes down all that could have
    said so. KFP tries it again, and would in the end fail the whole loop, with the trials that are
    still to come and the report. So the pod that finds all attempts spent trains no more.

    Args:
      root: The results root, namespace included.
      trial: The trial.
      run: The run's id.

    Returns:
      Whether the trial was given up.
    """
    allowed = _allowed()
    folder = trial_folder(root, trial)
    done = ResultRecord.exists(folder) or TrainingRecord.exists(folder)
    lost = _lost_attempts(folder, run)
    if not allowed or lost < allowed or done:
        return False
    reason = (
        f"this run lost its pod {_times(lost)}: killed for memory, out of time or without its "
        "node; see resources, time_limit and gpu.spot in the cluster file"
    )
    record_failure(folder, "training", reason)
    return True


def _lost_attempts(folder: Path, run: str) -> int:
    """Returns how many attempts of a run at a trial ended without a word."""
    found = [LeaseRecord.look(folder, n)[0] for n in range(1, latest_attempt(folder) + 1)]
    return sum(lease is not None and lease.run == run and lease.ended is None for lease in found)
