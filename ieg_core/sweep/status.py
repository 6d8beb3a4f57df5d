# SPDX-License-Identifier: Apache-2.0
"""`ieg status`: how far a sweep is, asked from another terminal than the one that runs it."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ieg_core.errors import UserError
from ieg_core.host.liveness import STALE_SECONDS
from ieg_core.store.layout import find_run, planned_trials
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
    plans = sorted(folder.glob("sweeps/*/plan.json"), key=lambda path: path.stat().st_mtime)
    if plans:
        folder = plans[-1].parent
    planned = planned_trials(folder) if folder.parent.name == "sweeps" else None
    if planned is not None:
        return folder.parent.parent, planned
    if folder.parent.name == "trials" and (folder / "config.json").exists():
        return folder.parent.parent, [folder.name]
    raise UserError(
        f"{place} holds no sweep: expected a results root (runs), a sweep's folder "
        "(runs/sweeps/…) or a trial's (runs/trials/…)"
    )


def read_trials(root: Path, trials: Sequence[str], now: float) -> list[TrialProgress]:
    """Reads how far trials are, whoever runs them.

    A trial whose heartbeat stopped is "interrupted"; one that says why it failed has failed.

    Args:
      root: The results root.
      trials: Their names.
      now: Unix time.

    Returns:
      Their progress.
    """
    found = []
    for trial in trials:
        each = progress.read_trial(root, trial, 0.0)
        if each.is_running and not progress.read_trial(root, trial, now - STALE_SECONDS).is_running:
            each = replace(each, state=INTERRUPTED)
        found.append(each)
    return found


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
