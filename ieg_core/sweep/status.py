# SPDX-License-Identifier: Apache-2.0
"""Which trials a folder of the results root stands for, and their progress now."""

from collections.abc import Sequence
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.report.provenance import differences
from ieg_core.store.layout import find_run, is_trial, planned_trials, trial_folder
from ieg_core.store.records import PlanRecord, ResultRecord
from ieg_core.sweep.progress import TrialProgress, read_trial


def find_trials(place: Path) -> tuple[Path, list[str]]:
    """Finds the trials of a results root, a sweep or a run.

    Args:
      place: A results root, which stands for its latest sweep; a sweep's folder; or a trial's.

    Returns:
      The results root, and the names of the trials in the order in which they start.

    Raises:
      UserError: When the folder is none of these.
    """
    folder = find_run(place)
    plans = sorted(
        folder.glob(f"sweeps/*/{PlanRecord.NAME}"), key=lambda path: path.stat().st_mtime
    )
    if plans:
        folder = plans[-1].parent
    planned = planned_trials(folder) if folder.parent.name == "sweeps" else None
    if planned is not None:
        return folder.parent.parent, planned
    if is_trial(folder):
        return folder.parent.parent, [folder.name]
    raise UserError(
        f"{place} contains no sweep: expected a results root (runs), a sweep's folder "
        "(runs/sweeps/…) or a trial's (runs/trials/…)"
    )


def read_differences(root: Path, trials: Sequence[str]) -> list[str]:
    """Describes in what the environments of the finished trials differ, a line each."""
    results = (ResultRecord.look(trial_folder(root, trial))[0] for trial in trials)
    return differences(result.to_value() for result in results if result)


def read_trials(root: Path, trials: Sequence[str], now: float) -> list[TrialProgress]:
    """Reads the progress of trials that any process or machine may run.

    Args:
      root: The results root.
      trials: The names of the trials.
      now: The time, Unix time in seconds; decides which trials count as interrupted.
    """
    return [read_trial(root, trial, 0.0, now) for trial in trials]
