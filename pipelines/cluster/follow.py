# SPDX-License-Identifier: Apache-2.0
"""Follows runs until they end: the progress of the trials, why they wait, and the outcome.

KFP's wait does not recognize canceled runs and shows no progress. The state of a run comes from
KFP, which gives no reason for it; the progress of its trials and why they failed from the results
root, and why a trial waits from Kubernetes. The last two may be inaccessible.
"""

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import urllib3
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ieg_core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, UserError
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.store.names import DEFAULT_ROOT, SWEEPS
from ieg_core.sweep import progress
from ieg_core.sweep.progress import TrialProgress
from pipelines.cluster import client as clients
from pipelines.cluster import preflight, waiting
from pipelines.cluster.run_root import Root, root_of
from pipelines.cluster.submit import Run
from pipelines.cluster_files import ClusterFile

TERMINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
POLL_SECONDS = 10.0
PLAIN_SECONDS = 60.0
PATIENCE_SECONDS = 600.0
SKEW_SECONDS = 120.0
"""How far a pod's clock may be behind KFP's."""


@dataclass(frozen=True)
class Look:
    """A snapshot of the runs.

    Attributes:
      states: State of each run, by id.
      tasks: Number of tasks in each state, over all runs.
      trials: Progress of the trials; empty if the results root cannot be read.
      running: Whether there is a running pod, or a trial with a recent heartbeat.
      waiting: Why trials wait, by name.
      note: What could not be read, and why.
    """

    states: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)
    trials: Sequence[TrialProgress] = ()
    running: bool = False
    waiting: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def is_over(self) -> bool:
        """Whether every run has ended."""
        return all(state in TERMINAL for state in self.states.values())


def follow(
    cluster_file: ClusterFile,
    runs: Sequence[Run],
    *,
    max_pending: float = 0.0,
    out: Path = Path(DEFAULT_ROOT),
    stream: IO[str] | None = None,
    clock: Clock = CLOCK,
) -> int:
    """Follows runs until they end, then fetches the report.

    Args:
      cluster_file: The cluster file.
      runs: The runs.
      max_pending: Minutes without a running pod after which the runs are canceled; 0: never.
      out: Folder to copy the report to, as cluster/<label>.
      stream: Where to write; standard output by default.
      clock: Tells the time between two looks.

    Returns:
      0 if all succeeded, 1 if not, 130 if the user stopped watching; the runs then continue.

    Raises:
      UserError: When KFP does not answer for ten minutes.
    """
    console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
    watcher = _Watcher(cluster_file, runs, max_pending, console, clock)
    try:
        look = watcher.watch()
    except KeyboardInterrupt:
        links = ", ".join(clients.run_link(cluster_file, run.run_id) for run in runs)
        console.print(f"\nStopped watching; it continues on the cluster: {links}", markup=False)
        return EXIT_INTERRUPTED
    return _conclude(watcher, look, out)


def cancel(client: Any, cluster_file: ClusterFile, run: str, clock: Clock = CLOCK) -> None:
    """Cancels a run, once: KFP refuses to cancel one that has ended, or is just ending.

    Args:
      client: KFP's client.
      cluster_file: The cluster file.
      run: The run's id.
      clock: Tells the time between two tries.

    Raises:
      UserError: When KFP refuses, or does not answer for two minutes.
    """

    def has_ended() -> bool | None:
        return client.get_run(run).state in (*TERMINAL, "CANCELING") or None

    def terminate() -> bool:
        client.terminate_run(run)
        return True

    try:
        clients.create(cluster_file, "cancel the run", terminate, has_ended, clock)
    except UserError:
        if not clients.ask(cluster_file, "read the run", has_ended, clock):
            raise


class _Watcher:
    """Polls the runs, and keeps the state between two polls."""

    def __init__(
        self,
        cluster_file: ClusterFile,
        runs: Sequence[Run],
        max_pending: float,
        console: Console,
        clock: Clock,
    ) -> None:
        self.cluster_file, self.runs, self.max_pending = cluster_file, runs, max_pending
        self.console, self.clock = console, clock
        self.client = clients.connect(cluster_file, clock=clock)
        self.kubernetes = preflight.reach(cluster_file)
        self.roots: dict[str, Root | None] = {}
        self.pods: waiting.Pods | None = None
        self.began = self.last_work = self.last_answer = clock.monotonic()
        self.last = Look({run.run_id: "?" for run in runs})
        self.canceled, self.pause = False, POLL_SECONDS
        self.shown: dict[str, tuple[str, float]] = {}

    def watch(self) -> Look:
        """Polls until every run has ended, and shows each snapshot."""
        is_terminal = self.console.is_terminal
        live = Live(console=self.console, auto_refresh=False) if is_terminal else None
        with live or contextlib.nullcontext():
            while True:
                look = self.look()
                if live:
                    live.update(self.render(look), refresh=True)
                else:
                    self.print_changes(look)
                if look.is_over:
                    return look
                self.clock.sleep(self.pause)

    def look(self) -> Look:
        """Polls once; cancels runs that have waited too long."""
        answer = self._ask_kfp()
        if isinstance(answer, Look):
            return answer
        states = {run.run_id: str(run.state or "PENDING") for run in answer}
        tasks = Counter(str(task.state) for run in answer for task in _tasks(run) if task.state)
        progressed = [self._trials(run) for run in answer]
        trials = [trial for some, _ in progressed for trial in some]
        pods = self._pods([run for run in states if states[run] not in TERMINAL])
        problems = [root.problem for root in self.roots.values() if root]
        self.last = look = Look(
            states=states,
            tasks=tasks,
            trials=[_with_reason(trial, pods.waiting) for trial in trials],
            running=pods.running > 0 or any(beats for _, beats in progressed),
            waiting=pods.waiting,
            note="; ".join(filter(None, dict.fromkeys([pods.note, *problems]))),
        )
        self._cancel_if_stuck(look)
        return look

    def _ask_kfp(self) -> Any:
        """Reads the runs; while KFP does not answer, returns the last snapshot with a note."""
        try:
            with clients.plain_errors(self.cluster_file, "read the run"):
                runs = [self.client.get_run(run.run_id) for run in self.runs]
        except UserError as error:
            if self.clock.monotonic() - self.last_answer > PATIENCE_SECONDS:
                link = clients.run_link(self.cluster_file, self.runs[0].run_id)
                raise UserError(f"{error}; stopped watching, the run continues: {link}") from None
            try:
                # Reads the credentials again, which may have been renewed.
                self.client = clients.connect(self.cluster_file, clock=self.clock)
            except UserError as again:
                error = again
            self.pause = max(POLL_SECONDS, getattr(error, "wait", 0.0))
            return replace(self.last, note=f"{error}; retrying")
        self.pause = POLL_SECONDS
        self.last_answer = self.clock.monotonic()
        return runs

    def _trials(self, run: Any) -> tuple[list[TrialProgress], bool]:
        if run.run_id not in self.roots:
            self.roots[run.run_id] = root_of(self.cluster_file, run)
        root = self.roots[run.run_id]
        if root is None:
            return [], False
        since = run.created_at.timestamp() - SKEW_SECONDS if run.created_at else 0.0
        trials, beats = root.progress(since, self.clock.now())
        if str(run.state) in TERMINAL:
            trials = [_lost(trial) for trial in trials]
        return trials, beats

    def _pods(self, runs: Sequence[str]) -> waiting.Pods:
        if self.kubernetes is None or not runs:
            return waiting.Pods()
        try:
            pods = waiting.look(self.kubernetes, self.cluster_file.kubernetes_namespace, runs)
        except (urllib3.exceptions.HTTPError, OSError):
            note = "the Kubernetes API does not answer; retrying"
            pods = waiting.Pods(note=note, are_known=False)
        if pods.are_known:
            self.pods = pods
            return pods
        # Its token may have expired, and the pods may run on.
        self.kubernetes = preflight.reach(self.cluster_file) or self.kubernetes
        return replace(self.pods or waiting.Pods(), note=pods.note)

    def _cancel_if_stuck(self, look: Look) -> None:
        """Cancels the runs if no pod has run for `max_pending` minutes."""
        unseen = self.pods is None and not look.trials
        waits = "PENDING" in look.states.values() if unseen else not look.running
        if not waits or look.is_over:
            self.last_work = self.clock.monotonic()
        minutes = (self.clock.monotonic() - self.last_work) / 60
        if not self.max_pending or minutes <= self.max_pending or self.canceled:
            return
        self.canceled = True
        reasons = "; ".join(dict.fromkeys(look.waiting.values()))
        self.console.print(
            f"Canceled: no pod has run for MAX_PENDING={self.max_pending:g} minutes"
            + (f": {reasons}" if reasons else ""),
            markup=False,
        )
        failed: list[UserError] = []
        for run, state in look.states.items():
            try:
                if state not in TERMINAL:
                    cancel(self.client, self.cluster_file, run, self.clock)
            except UserError as error:
                failed.append(error)  # still cancel the other runs
        if failed:
            raise failed[0]

    def lines(self, look: Look) -> dict[str, str]:
        """Returns the lines to print, by subject."""
        lines = {}
        for run in self.runs:
            lines[run.run_id] = f"run {run.label or run.run_id}: {look.states[run.run_id]}"
        if look.tasks and not look.trials:
            counts = ", ".join(f"{n} {state.lower()}" for state, n in sorted(look.tasks.items()))
            lines["tasks"] = f"tasks: {counts}"
        trials = {trial.trial for trial in look.trials}
        others = {name: why for name, why in look.waiting.items() if name not in trials}
        lines |= {f"waiting {name}": f"waiting: {name}: {why}" for name, why in others.items()}
        if look.note:
            lines["note"] = look.note
        return lines

    def print_changes(self, look: Look) -> None:
        """Prints the lines that changed, and each running trial once a minute."""
        now, stamp = self.clock.monotonic(), time.strftime("%H:%M:%S")
        lines = {key: (text, text, False) for key, text in self.lines(look).items()}
        for trial in look.trials:
            words = f"{trial.state} {trial.reason}"
            lines[trial.trial] = (words, progress.line(trial), trial.is_running)
        for key, (words, text, repeats) in lines.items():
            before, last = self.shown.get(key, ("waiting ", 0.0))
            if words != before or (repeats and now - last >= PLAIN_SECONDS):
                self.console.print(f"{stamp} {text}", markup=False)
                self.shown[key] = (words, now)
        self.console.file.flush()

    def render(self, look: Look) -> Group:
        """Renders a snapshot for a terminal."""
        parts: list[Any] = []
        if look.trials:
            elapsed = self.clock.monotonic() - self.began
            height = self.console.height - len(look.waiting) - len(self.runs) - 2
            parts.append(progress.table(look.trials, elapsed, max(8, height)))
            idle = (progress.WAITING, progress.INTERRUPTED)
            reasons = Counter(c.reason for c in look.trials if c.state in idle and c.reason)
            parts += [Text(f"{n} waiting: {why}", style="yellow") for why, n in reasons.items()]
        parts += [Text(text) for text in self.lines(look).values()]
        return Group(*parts)


def _conclude(watcher: _Watcher, look: Look, out: Path) -> int:
    """Prints the outcome and fetches the report; returns the exit code."""
    cluster_file, console = watcher.cluster_file, watcher.console
    for trial in look.trials:
        if trial.state == progress.FAILED:
            console.print(f"failed: {trial.trial}: {trial.reason}", markup=False)
    for run in watcher.runs:
        state = look.states[run.run_id]
        # KFP has no state of its own for the end of a run that was terminated.
        ended = f"{state} (canceled)" if watcher.canceled and state == "FAILED" else state
        console.print(f"{ended}: {run.label or run.run_id}", markup=False)
        console.print(f"  {clients.run_link(cluster_file, run.run_id)}", markup=False)
    first = watcher.runs[0]
    root = watcher.roots.get(first.run_id)
    if root is None:
        place = f"{cluster_file.results}/{SWEEPS}"
        words = f"in the KFP UI, or below {place} (results_mount in cluster.yaml is empty)"
    else:
        # After a loop that lost a pod for good comes no report; one that is there may be older.
        ended_early = any(state != "SUCCEEDED" for state in look.states.values())
        if ended_early and (problem := root.write_report()):
            console.print(f"The report could not be written again: {problem}", markup=False)
        words = root.fetch_report(out / "cluster" / (first.label or first.run_id))
    console.print(f"Report: {words}", markup=False)
    succeeded = all(state == "SUCCEEDED" for state in look.states.values())
    return EXIT_OK if succeeded else EXIT_FAILED


def _tasks(run: Any) -> list[Any]:
    return (run.run_details.task_details or []) if run.run_details else []


def _with_reason(trial: TrialProgress, reasons: Mapping[str, str]) -> TrialProgress:
    if trial.trial not in reasons:
        return trial
    return replace(_lost(trial), reason=trial.reason or reasons[trial.trial])


def _lost(trial: TrialProgress) -> TrialProgress:
    """Marks a trial without a pod as not running, however recent its heartbeat is."""
    return replace(trial, state=progress.INTERRUPTED) if trial.is_running else trial
