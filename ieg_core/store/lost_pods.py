# SPDX-License-Identifier: Apache-2.0
"""How often a run has begun to evaluate a trial, so that lost pods cost that trial alone.

<trial>/evaluations/<run>.json   {"attempts": how many pods have begun}

Trainings count by their leases (`runs.fail_after_lost_pods`). An evaluation leases a trial only if
there is something to compute, but its pod can be lost without that too.
"""

import json
import os
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.host.files import read_json, write_json_atomic
from ieg_core.store import gcs, mirror
from ieg_core.store.layout import trial_folder
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
    name = f"trials/{trial}/evaluations/{run}.json"
    try:
        before = int((mirror.read_json(root, name) or {}).get("attempts", 0))
    except (UserError, AttributeError, TypeError, ValueError):  # damaged: count anew
        before = 0
    record = {"attempts": before + 1}
    if gcs.is_url(root):
        gcs.write(gcs.join(root, name), json.dumps(record).encode())
    else:
        write_json_atomic(Path(root) / name, record)
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
    if any((folder / name).exists() for name in ("result.json", "failure.json")):
        return True
    times = "once" if lost == 1 else f"{lost} times"
    failure = {
        "phase": "evaluating",
        "reason": f"this run lost the pod of its evaluation {times}: killed for memory, out of "
        "time, without its node or for what its log says; see resources.evaluate and time_limit "
        "in the cluster file",
        "step": (read_json(folder / "progress.json") or {}).get("step", 0),
        "log": "",
    }
    write_json_atomic(folder / "failure.json", failure)
    return True


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
    done = any((folder / name).exists() for name in ("result.json", "training.json"))
    lost = _lost_attempts(folder, run)
    if not allowed or lost < allowed or done:
        return False
    times = "once" if lost == 1 else f"{lost} times"
    progress = read_json(folder / "progress.json") or {}
    failure = {
        "phase": "training",
        "reason": f"this run lost its pod {times}: killed for memory, out of time or without its "
        "node; see resources, time_limit and gpu.spot in the cluster file",
        "step": progress.get("step", 0),
        "log": "",
    }
    write_json_atomic(folder / "failure.json", failure)
    return True


def _lost_attempts(folder: Path, run: str) -> int:
    """Returns how many attempts of a run at a trial ended without a word."""
    leases = [_read(path) for path in folder.glob("leases/*.json")]
    return sum(lease.get("run") == run and not lease.get("ended") for lease in leases)


def _read(path: Path) -> dict[str, object]:
    try:
        found = read_json(path)
    except (OSError, UserError):  # killed while it leased the trial
        return {}
    return found if isinstance(found, dict) else {}
