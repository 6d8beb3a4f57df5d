# SPDX-License-Identifier: Apache-2.0
"""The progress of a sweep's trials, read from the results root and shown while they run."""

import contextlib
import math
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ieg_core.host.clock import CLOCK, Clock
from ieg_core.host.liveness import is_recent
from ieg_core.store import leases
from ieg_core.store.layout import relative_trial
from ieg_core.store.record import Place, below
from ieg_core.store.records import FailureRecord, ProgressRecord, ResultRecord

WAITING, FINISHED, FAILED, INTERRUPTED = "waiting", "finished", "failed", "interrupted"
COUNTED = ("training", FINISHED, FAILED, INTERRUPTED)
LIVE_SECONDS = 0.5
PLAIN_SECONDS = 10.0
PIPED_WIDTH = 400  # wide enough for whole names
LEAST_NAME, GAP = 24, 2
MIN_SHARE = 0.1


@dataclass(frozen=True)
class TrialProgress:
    """The progress of one trial.

    Attributes:
      trial: Its name.
      state: "waiting", "starting", "computing features", "training", "evaluating", "finished",
        "failed", or "interrupted" if it has begun but no process works on it.
      step: Steps done.
      num_steps: Total steps; 0 if not yet known.
      steps_per_second: The current rate; 0 if not yet known.
      accuracy: The latest test accuracy of the averaged parameters, in [0, 1]; None before the
        first evaluation.
      reason: Why it failed, else "".
    """

    trial: str
    state: str
    step: int = 0
    num_steps: int = 0
    steps_per_second: float = 0.0
    accuracy: float | None = None
    reason: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it has finished or failed."""
        return self.state in (FINISHED, FAILED)

    @property
    def is_running(self) -> bool:
        """Whether a process works on it."""
        return self.state not in (WAITING, FINISHED, FAILED, INTERRUPTED)

    @property
    def share_done(self) -> float:
        """The share of its steps that is done, in [0, 1]; 1 if it is over."""
        return 1.0 if self.is_over else self.step / max(1, self.num_steps)

    @property
    def seconds_left(self) -> float | None:
        """Seconds of training left at the current rate; None if unknown."""
        if self.state != "training" or self.steps_per_second <= 0:
            return None
        return max(0, self.num_steps - self.step) / self.steps_per_second


def read_trial(place: Place, trial: str, since: float, now: float | None = None) -> TrialProgress:
    """Reads the progress of a trial.

    Args:
      place: The results root, a folder or gs://….
      trial: The trial's name.
      since: Unix time at which this sweep began; older progress and failures belong to an earlier
        attempt and are ignored.
      now: The current Unix time: a trial without a recent heartbeat counts as interrupted. None if
        the caller runs the trials itself and knows that they are alive.

    Returns:
      Its progress. Missing, damaged or partly written files are ignored.
    """
    folder = below(place, relative_trial(trial))
    result, _ = ResultRecord.look(folder)
    if result:
        steps, rate = result.steps, result.steps_per_second
        return TrialProgress(trial, FINISHED, steps, steps, rate, result.accuracy_ema_last)
    progress, _ = ProgressRecord.look(folder)
    failure, _ = FailureRecord.look(folder)
    is_old = progress is not None and progress.updated < since
    reason = ""
    # An attempt deletes failure.json before it first reports progress.
    if failure and not is_old:
        state, reason = FAILED, failure.reason
    elif progress is None or is_old:
        state = WAITING
    elif now is not None and (
        not is_recent(progress.updated, now)
        or (isinstance(folder, Path) and leases.has_died_here(folder, progress.attempt))
    ):
        state = INTERRUPTED
    else:
        state = progress.phase
    if progress is None:
        return TrialProgress(trial, state, reason=reason)
    return TrialProgress(
        trial,
        state,
        progress.step,
        progress.num_steps,
        progress.steps_per_second,
        progress.accuracy_ema,
        reason,
    )


def title(trial: str) -> str:
    """Returns a trial's name without the digest at its end."""
    return trial.rpartition("-")[0] or trial


def duration(seconds: float | None) -> str:
    """Formats seconds as 0:07, 12:30 or 1:02:03; "" if unknown."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def accuracy_text(accuracy: float | None) -> str:
    """Formats an accuracy in [0, 1] as a percentage; "" for None."""
    return "" if accuracy is None else f"{100 * accuracy:.1f} %"


def summary(trials: Sequence[TrialProgress], elapsed: float | None, expected: float = 0.0) -> str:
    """Formats a one-line progress summary.

    Args:
      trials: All trials.
      elapsed: Seconds since the start; None if unknown.
      expected: Estimated seconds for the whole sweep; 0 if unknown.

    Returns:
      For example "2 of 6 trials finished, 2 running, 0:36 of about 1:20".
    """
    count = {state: sum(c.state == state for c in trials) for state in (FINISHED, FAILED)}
    running = sum(c.is_running for c in trials)
    parts = [f"{count[FINISHED]} of {len(trials)} trials finished", f"{running} running"]
    if count[FAILED]:
        parts.append(f"{count[FAILED]} failed")
    if elapsed is None:
        return ", ".join(parts)
    time_text = f"of about {duration(expected)}" if expected > elapsed else "elapsed"
    return ", ".join([*parts, f"{duration(elapsed)} {time_text}"])


def forecast(
    trials: Sequence[TrialProgress],
    elapsed: float,
    expected: float,
    estimates: Mapping[str, float],
) -> float:
    """Corrects the estimate of a sweep's time by the pace so far.

    Args:
      trials: All trials.
      elapsed: Seconds since the start.
      expected: Estimated seconds for the whole sweep, made before it started; 0 if unknown.
      estimates: Estimated seconds of each trial that was to be run.

    Returns:
      Seconds for the whole sweep; `expected` until MIN_SHARE of the work is done.
    """
    work = sum(estimates.values())
    done = sum(estimates.get(trial.trial, 0.0) * trial.share_done for trial in trials)
    return elapsed * work / done if done > MIN_SHARE * work else expected


def line(trial: TrialProgress) -> str:
    """Formats the progress of a trial as one line."""
    text = f"{title(trial.trial)}: {trial.state}"
    if trial.state == "training" and trial.num_steps:
        text += f" step {trial.step}/{trial.num_steps}"
    if trial.state == "training" and trial.steps_per_second:
        text += f", {trial.steps_per_second:.1f} steps/s, {duration(trial.seconds_left)} left"
    if trial.accuracy is not None:
        text += f", accuracy {accuracy_text(trial.accuracy)}"
    return f"{text}: {trial.reason}" if trial.reason else text


def table(
    trials: Sequence[TrialProgress],
    elapsed: float | None,
    height: int,
    expected: float = 0.0,
    width: int = PIPED_WIDTH,
) -> Group:
    """Lays out the trials for a terminal, one line each, with the summary below.

    Args:
      trials: All trials, in order.
      elapsed: Seconds since the start; None if unknown.
      height: Lines of the terminal. If there are more trials, running ones come first, then failed
        ones, and the rest is hidden.
      expected: Estimated seconds for the whole sweep; 0 if unknown.
      width: Columns of the terminal. If it is too narrow for the names, the columns steps/s and
        left are dropped first, then the beginnings of the names.

    Returns:
      A renderable for rich.
    """
    room = max(1, height - 4)
    hidden = max(0, len(trials) - room)
    if hidden:
        trials_shown = sorted(trials, key=lambda c: (not c.is_running, c.state != FAILED))[:room]
    else:
        trials_shown = list(trials)
    columns = {
        "state": [trial.state for trial in trials_shown],
        "step": [
            f"{trial.step}/{trial.num_steps}" if trial.num_steps and trial.state in COUNTED else ""
            for trial in trials_shown
        ],
        "steps/s": [
            f"{trial.steps_per_second:.1f}" if trial.steps_per_second else ""
            for trial in trials_shown
        ],
        "left": [duration(trial.seconds_left) for trial in trials_shown],
        "accuracy": [accuracy_text(trial.accuracy) for trial in trials_shown],
    }
    names = [title(trial.trial) for trial in trials_shown]

    def room_for_names() -> int:
        taken = sum(GAP + max(map(len, (name, *texts))) for name, texts in columns.items())
        return width - taken

    for name in ("steps/s", "left"):
        if room_for_names() < min(LEAST_NAME, max(map(len, names), default=0)):
            del columns[name]
    room = max(1, room_for_names())
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("trial", no_wrap=True)
    for name in columns:
        grid.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    styles = {FINISHED: "green", FAILED: "red", WAITING: "dim", INTERRUPTED: "yellow"}
    for trial, name, *texts in zip(trials_shown, names, *columns.values(), strict=True):
        # Keep the end of a name: it has the method and the seed.
        name = name if len(name) <= room else f"…{name[len(name) - room + 1 :]}"
        grid.add_row(*map(Text, (name, *texts)), style=styles.get(trial.state, ""))
    more = f"; {hidden} more not shown" if hidden else ""
    return Group(grid, Text(summary(trials, elapsed, expected) + more, style="bold"))


def watch(
    results: Path,
    trials: Sequence[str],
    is_alive: Callable[[], bool],
    *,
    expected: float = 0.0,
    estimates: Mapping[str, float] = types.MappingProxyType({}),
    stream: IO[str] | None = None,
    read: Callable[[], list[TrialProgress]] | None = None,
    on_look: Callable[[Sequence[TrialProgress], float], None] = lambda trials, left: None,
    clock: Clock = CLOCK,
) -> list[TrialProgress]:
    """Shows the progress of trials until the process that runs them ends.

    A terminal shows one table that is redrawn. Other streams get a line for each change of state,
    and a line for each running trial every ten seconds.

    Args:
      results: The results root.
      trials: The names of the trials, in display order.
      is_alive: Returns whether the process that runs them is still running.
      expected: Estimated seconds for the whole sweep; 0 if unknown.
      estimates: Estimated seconds of each trial that is to be run.
      stream: The stream to write to; by default standard output.
      read: Reads the progress; by default `read_trial` with the time of this call as `since`.
      on_look: Called at each look with the progress and the seconds that are left.
      clock: Tells the time between two looks.

    Returns:
      The progress of the trials at the end.
    """
    console = Console(file=stream or sys.stdout)
    began = clock.now()
    read = read or (lambda: [read_trial(results, trial, began) for trial in trials])
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    shown = {} if live else {trial.trial: (trial.state, -math.inf) for trial in read()}
    with live or contextlib.nullcontext():
        while True:
            alive = is_alive()
            seen, elapsed = read(), clock.now() - began
            total = forecast(seen, elapsed, expected, estimates)
            on_look(seen, max(0.0, total - elapsed))
            if live:
                drawn = table(seen, elapsed, console.height, total, console.width)
                live.update(drawn, refresh=True)
            for trial in () if live else seen:
                state, last = shown[trial.trial]
                if trial.state != state or (trial.is_running and elapsed - last >= PLAIN_SECONDS):
                    print(f"{time.strftime('%H:%M:%S')} {line(trial)}", file=console.file)
                    shown[trial.trial] = (trial.state, elapsed)
            console.file.flush()
            if not alive:
                return seen
            clock.sleep(LIVE_SECONDS)
