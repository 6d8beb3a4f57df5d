# SPDX-License-Identifier: Apache-2.0
"""`ieg status`: how far a sweep is, asked from another terminal than the one that runs it."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ieg_core.errors import UserError
from ieg_core.store.layout import find_run, is_trial, planned_trials
from ieg_core.store.records import PlanRecord
from ieg_core.sweep import progress
from ieg_core.sweep.progress import INTERRUPTED, WAITING, TrialProgress


def find_trials(place: Path) -> tuple[Path, list[str]]:
    """Finds the trials that a folder stands for.

    Args:
      place: A results root (its sweep that was started last), a sweep's folder or a trial's.

    Returns:
      The results root and the names of the trials, in the order in which they start.

    Raises:
      UserError: The folder is none of these.
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
        f"{place} holds no sweep: expected a results root (runs), a sweep's folder "
        "(runs/sweeps/…) or a trial's (runs/trials/…)"
    )


def read_trials(root: Path, trials: Sequence[str], now: float) -> list[TrialProgress]:
    """Reads how far trials are at a Unix time, whoever runs them."""
    return [progress.read_trial(root, trial, 0.0, now) for trial in trials]


def show(place: Path, *, watch: bool = False) -> list[TrialProgress]:
    """Prints how far a sweep is: once, or again and again until nothing of it runs any more.

    Args:
      place: What `find_trials` takes.
      watch: Whether to go on while a trial runs.

    Returns:
      How far the trials were at the end.
    """
    root, trials = find_trials(place)
    console = Console(width=None if sys.stdout.isatty() else progress.PIPED_WIDTH, highlight=False)

    def read() -> list[TrialProgress]:
        return read_trials(root, trials, time.time())

    found = read()
    watched = watch and any(trial.is_running for trial in found)
    if watched:
        found = progress.watch(
            root, trials, lambda: any(trial.is_running for trial in read()), read=read
        )
    if not (watched and console.is_terminal):  # where the last table still stands
        drawn = progress.table(found, None, len(trials) + 4, width=console.width)
        console.print(drawn)
    for trial in found:
        if trial.reason:
            console.print(progress.line(trial), style="red", markup=False, soft_wrap=True)
    idle = sum(trial.state in (WAITING, INTERRUPTED) for trial in found)
    if idle and not any(trial.is_running for trial in found):
        print(f"Nothing runs now; {idle} to go: the command that started it goes on with it.")
    return found
