# SPDX-License-Identifier: Apache-2.0
"""The page of a sweep while its trials run: written again as they proceed, replaced by the report.

It must not disturb the sweep: it is written only when something changed, at most every ten seconds
and for at most 5 % of the time, and an error costs one line in the log.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ieg_core.host.clock import CLOCK, Clock
from ieg_core.host.files import write_bytes_atomic
from ieg_core.report.html import page
from ieg_core.report.live import Live, LiveTrial
from ieg_core.report.model import summarize
from ieg_core.report.trials import FINISHED, Stamp, Trial, file_stamp, load_sweep, load_trial
from ieg_core.report.write import write_report
from ieg_core.store import layout
from ieg_core.sweep import progress
from ieg_core.sweep.progress import TrialProgress

SECONDS = 10.0
"""Seconds between two pages, if writing one takes less than a twentieth of that."""
PATIENCE = 20.0
"""Seconds between two pages for each second that writing one takes."""


class LiveReport:
    """Writes the page of a sweep that runs in this process or in a child.

    Attributes:
      path: The page.
    """

    def __init__(
        self,
        root: Path,
        sweep: str,
        estimates: Mapping[str, float],
        log: Callable[[str], None],
        clock: Clock = CLOCK,
    ) -> None:
        """Prepares; the first `update` writes.

        Args:
          root: The results root.
          sweep: The sweep's name.
          estimates: Estimated seconds of each trial that had not finished at the start.
          log: Takes the line of an error.
          clock: Tells the time between two pages.
        """
        self.path = layout.report_folder(root, sweep) / layout.REPORT_PAGE
        self._root, self._sweep = root, sweep
        self._estimates, self._log, self._clock = estimates, log, clock
        self._interval, self._next = SECONDS, 0.0
        self._shown: Sequence[TrialProgress] = ()
        self._written: Stamp = None
        self._finished: dict[str, Trial] = {}
        self._told = ""

    def update(self, trials: Sequence[TrialProgress], left: float) -> None:
        """Writes the page if it is due, and if the trials are not as when it was last written.

        Args:
          trials: The progress of all trials. When all have ended, the sweep writes its report, and
            this leaves it alone.
          left: Seconds until then.
        """
        began = self._clock.now()
        if began < self._next or trials == self._shown or all(each.is_over for each in trials):
            return
        self._guarded(lambda: self._write(trials, left, began))
        self._shown = list(trials)
        ended = self._clock.now()
        self._interval = max(SECONDS, PATIENCE * (ended - began))
        self._next = ended + self._interval

    def close(self) -> None:
        """Replaces the last live page with the report, unless the sweep has done so."""
        if self._written is not None and file_stamp(self.path) == self._written:
            self._guarded(lambda: write_report(self._root, self._sweep))

    def _guarded(self, write: Callable[[], object]) -> None:
        try:
            write()
        except Exception as error:  # the sweep goes on, whatever this is
            line = " ".join(f"{type(error).__name__}: {error}".split())
            if line != self._told:
                self._told = line
                self._log(f"The live report could not be written: {line}")

    def _write(self, trials: Sequence[TrialProgress], left: float, now: float) -> None:
        report = summarize(load_sweep(self._root, self._sweep, self._load))
        live = describe(trials, self._estimates, left, now, self._interval)
        write_bytes_atomic(self.path, page.render(report, live).encode("utf-8", "replace"))
        self._written = file_stamp(self.path)

    def _load(self, root: Path, name: str) -> Trial:
        """Reads a trial, a finished one only once."""
        known = self._finished.get(name)
        if known is not None and known.is_current:
            return known
        trial = load_trial(root, name)
        if trial.row["status"] == FINISHED:
            self._finished[name] = trial
        return trial


def describe(
    trials: Sequence[TrialProgress],
    estimates: Mapping[str, float],
    left: float,
    now: float,
    interval: float,
) -> Live:
    """Words the progress of a sweep for its page.

    Args:
      trials: All trials, in the order in which they start.
      estimates: Estimated seconds of each trial that had not finished at the start.
      left: Seconds until all trials have ended.
      now: Unix time.
      interval: Seconds until the next page.
    """
    done = sum(each.state == progress.FINISHED for each in trials)
    counts = {
        "running": sum(each.is_running for each in trials),
        "waiting": sum(each.state == progress.WAITING for each in trials),
        "failed": sum(each.state == progress.FAILED for each in trials),
    }
    ranks = (progress.FAILED, progress.INTERRUPTED, progress.WAITING)
    open_trials = sorted(
        (each for each in trials if each.state != progress.FINISHED),
        key=lambda each: ranks.index(each.state) if each.state in ranks else -1,
    )
    states = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    end = time.localtime(now + left)
    is_today = time.localtime(now)[:3] == end[:3]
    clock = time.strftime("%H:%M" if is_today else "%A %H:%M", end)
    work = sum(estimates.values())
    shares = sum(estimates.get(each.trial, 0.0) * each.share_done for each in trials)
    return Live(
        title=f"{done} of {len(trials)} trials finished",
        share=shares / work if work else done / len(trials),
        now=f"{states}. {_about(left)} left, until about {clock}.",
        updated=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)),
        reload_seconds=round(interval),
        trials=[_live_trial(each) for each in open_trials],
    )


def _live_trial(trial: TrialProgress) -> LiveTrial:
    counts = trial.num_steps and trial.state in progress.COUNTED
    return LiveTrial(
        trial=trial.trial,
        name=progress.title(trial.trial),
        state=trial.state,
        share=0.0 if trial.state == progress.WAITING else trial.share_done,
        step=f"{trial.step:,} / {trial.num_steps:,}" if counts else "",
        left=progress.duration(trial.seconds_left),
        accuracy=progress.accuracy_text(trial.accuracy),
        reason=trial.reason,
    )


def _about(seconds: float) -> str:
    if seconds < 60:
        return "Less than a minute"
    if seconds < 5400:
        minutes = round(seconds / 60)
        return f"About {minutes} minute{'s' if minutes > 1 else ''}"
    return f"About {seconds / 3600:.1f} hours"
