# SPDX-License-Identifier: Apache-2.0
"""How often a run has begun to evaluate a cell, so that lost pods cost that cell alone.

<cell>/evaluations/<run>.json   {"attempts": how many pods have begun}

Trainings count by their claims (`runs.give_up`). An evaluation claims a cell only if there is
something to compute, but its pod can be lost without that too.
"""

import json
import os
from pathlib import Path

from ieg_core import mirror, storage
from ieg_core.errors import UserError
from ieg_core.results import cell_folder, read_json, write_json_atomic
from ieg_core.runs import ATTEMPTS


def count_evaluation(root: str, cell: str, run: str) -> int:
    """Counts a run's attempt at evaluating a cell, before it does anything else.

    Written where all pods see it: of a bucket, a pod's local copy goes up only later.

    Args:
      root: The results root, namespace included; a folder or gs://bucket/prefix.
      cell: The cell.
      run: The run's id.

    Returns:
      How many there were before; 0 where attempts are not counted (`runs.ATTEMPTS`).
    """
    if not _allowed():
        return 0
    name = f"cells/{cell}/evaluations/{run}.json"
    try:
        before = int((mirror.read_json(root, name) or {}).get("attempts", 0))
    except (UserError, AttributeError, TypeError, ValueError):  # damaged: count anew
        before = 0
    record = {"attempts": before + 1}
    if storage.is_url(root):
        storage.write(storage.join(root, name), json.dumps(record).encode())
    else:
        write_json_atomic(Path(root) / name, record)
    return before


def give_up_evaluation(root: Path, cell: str, lost: int) -> bool:
    """Records the failure of a cell whose evaluation this run has lost as often as it may.

    A cell that has its result, or the reason why it has none, keeps it.

    Args:
      root: The results root, namespace included.
      cell: The cell.
      lost: Attempts before this one.

    Returns:
      Whether the evaluation was given up.
    """
    if not _allowed() or lost < _allowed():
        return False
    folder = cell_folder(root, cell)
    if any((folder / name).exists() for name in ("result.json", "failure.json")):
        return True
    times = "once" if lost == 1 else f"{lost} times"
    failure = {
        "phase": "evaluating",
        "reason": f"this run lost the pod of its evaluation {times}: killed for memory, out of "
        "time, without its node or for what its log says; see resources.evaluate and time_limit "
        "in the site file",
        "step": (read_json(folder / "progress.json") or {}).get("step", 0),
        "log": "",
    }
    write_json_atomic(folder / "failure.json", failure)
    return True


def _allowed() -> int:
    return int(os.environ.get(ATTEMPTS) or 0)
