# SPDX-License-Identifier: Apache-2.0
"""Limits on lost pods: a trial whose pods are lost too often fails, and the run continues.

Lost training pods are counted by their leases (`fail_after_lost_pods`). An evaluation takes a lease
only if it has something to compute, so its attempts are counted in a file of their own.
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
    """Counts a run's attempt to evaluate a trial; call it before anything else.

    Writes directly to the results root, because a pod uploads its local copy only later.

    Args:
      root: The results root, namespace included; a folder or gs://bucket/prefix.
      trial: The trial.
      run: The run's id.

    Returns:
      The number of earlier attempts; 0 if attempts are not limited (`runs.ATTEMPTS`).
    """
    if not _allowed():
        return 0
    place = below(root, relative_trial(trial))
    record, _ = EvaluationRecord.look(place, run)  # a damaged record restarts the count
    before = record.attempts if record else 0
    EvaluationRecord(attempts=before + 1).write(place, run)
    return before


def fail_evaluation_after_lost_pods(root: Path, trial: str, lost: int) -> bool:
    """Records the failure of a trial whose evaluation has exhausted this run's attempts.

    An existing result or failure is kept.

    Args:
      root: The results root, namespace included.
      trial: The trial.
      lost: The number of earlier attempts.

    Returns:
      Whether the attempts are exhausted.
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
    """Records the failure of a trial whose training has exhausted this run's attempts.

    A pod that runs out of memory or time, or loses its node, cannot record its own failure. KFP
    retries it, and after the last retry fails the whole loop, including the remaining trials and
    the report. To prevent that, the last attempt records the failure instead of training.

    Args:
      root: The results root, namespace included.
      trial: The trial.
      run: The run's id.

    Returns:
      Whether the attempts are exhausted.
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
    """Returns the number of a run's attempts at a trial that did not end their lease."""
    records = [LeaseRecord.look(folder, n)[0] for n in range(1, latest_attempt(folder) + 1)]
    return sum(lease is not None and lease.run == run and lease.ended is None for lease in records)
