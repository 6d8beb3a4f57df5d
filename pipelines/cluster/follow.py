# SPDX-License-Identifier: Apache-2.0
"""Follows runs to their true end: what the cells do, why one waits, how it all ended.

KFP's own wait knows no canceled run and shows nothing. The state of a run comes from KFP, the
progress of its cells from the results root, why a cell waits from Kubernetes; each of the last two
may be out of reach.
"""

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

from ieg_core import progress
from ieg_core.errors import UserError
from ieg_core.progress import CellProgress
from pipelines.cluster import client as clients
from pipelines.cluster import preflight, waiting
from pipelines.cluster.roots import Root, root_of
from pipelines.cluster.submit import Run
from pipelines.site import Site

TERMINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130
POLL_SECONDS = 10.0
PLAIN_SECONDS = 60.0
PATIENCE_SECONDS = 600.0
SKEW_SECONDS = 120.0
"""How much earlier than KFP's a pod's clock may be."""


@dataclass(frozen=True)
class Look:
    """What one look at the runs found.

    Attributes:
      states: State of each run, by id.
      errors: What KFP says went wrong, by run id.
      tasks: Number of tasks in each state, over all runs.
      cells: Progress of the cells; empty where the results root is out of reach.
      running: Whether anything works: a pod, or a cell with a fresh heartbeat.
      waiting: Why cells wait.
      note: What could not be looked at.
    """

    states: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)
    cells: Sequence[CellProgress] = ()
    running: bool = False
    waiting: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def is_over(self) -> bool:
        """Whether every run has ended."""
        return all(state in TERMINAL for state in self.states.values())


def follow(
    site: Site,
    runs: Sequence[Run],
    *,
    max_pending: float = 0.0,
    out: Path = Path("runs"),
    stream: IO[str] | None = None,
) -> int:
    """Follows runs until they have ended, then fetches the report.

    Args:
      site: The site.
      runs: The runs.
      max_pending: Minutes after which runs of which nothing works are canceled; 0: never.
      out: Folder under which the report is copied, to cluster/<label>.
      stream: Where to write; standard output by default.

    Returns:
      0 if all succeeded, 1 if not, 130 if the user stopped watching: the runs go on then.

    Raises:
      UserError: KFP does not answer for ten minutes.
    """
    console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
    watcher = _Watcher(site, runs, max_pending, console)
    try:
        look = watcher.watch()
    except KeyboardInterrupt:
        links = ", ".join(clients.run_link(site, run.run_id) for run in runs)
        console.print(f"\nStopped watching; on the cluster it goes on: {links}", markup=False)
        return EXIT_INTERRUPTED
    return _conclude(watcher, look, out)


class _Watcher:
    """Looks at runs again and again; holds what lasts from one look to the next."""

    def __init__(
        self, site: Site, runs: Sequence[Run], max_pending: float, console: Console
    ) -> None:
        self.site, self.runs, self.max_pending, self.console = site, runs, max_pending, console
        self.client = clients.connect(site)
        self.kubernetes = preflight.reach(site)
        self.roots: dict[str, Root | None] = {}
        self.began = self.last_work = self.last_answer = time.monotonic()
        self.last = Look({run.run_id: "?" for run in runs})
        self.canceled = False
        self.shown: dict[str, tuple[str, float]] = {}

    def watch(self) -> Look:
        """Looks until every run has ended; shows each look."""
        if not self.console.is_terminal:
            while True:
                look = self.look()
                self.tell(look)
                if look.is_over:
                    return look
                time.sleep(POLL_SECONDS)
        with Live(console=self.console, auto_refresh=False) as live:
            while True:
                look = self.look()
                live.update(self.drawn(look), refresh=True)
                if look.is_over:
                    return look
                time.sleep(POLL_SECONDS)

    def look(self) -> Look:
        """Looks once; cancels what has waited for too long."""
        found = self._ask_kfp()
        if isinstance(found, Look):
            return found
        states = {run.run_id: str(run.state or "PENDING") for run in found}
        errors = {run.run_id: str(run.error.message or "") for run in found if run.error}
        tasks = Counter(str(task.state) for run in found for task in _tasks(run) if task.state)
        progressed = [self._cells(run) for run in found]
        cells = [cell for some, _ in progressed for cell in some]
        pods = self._pods([run for run in states if states[run] not in TERMINAL])
        problems = [root.problem for root in self.roots.values() if root]
        self.last = look = Look(
            states=states,
            errors=errors,
            tasks=tasks,
            cells=[_with_reason(cell, pods.waiting) for cell in cells],
            running=pods.running > 0 or any(beats for _, beats in progressed),
            waiting=pods.waiting,
            note="; ".join(filter(None, dict.fromkeys([pods.note, *problems]))),
        )
        self._cancel_if_stuck(look)
        return look

    def _ask_kfp(self) -> Any:
        """Reads the runs; while KFP does not answer, an empty look says so."""
        try:
            with clients.plain_errors(self.site, "read the run"):
                found = [self.client.get_run(run.run_id) for run in self.runs]
        except UserError as error:
            if time.monotonic() - self.last_answer > PATIENCE_SECONDS:
                link = clients.run_link(self.site, self.runs[0].run_id)
                raise UserError(f"{error}; stopped watching, the run goes on: {link}") from None
            try:
                self.client = clients.connect(self.site)  # with the credentials as they are now
            except UserError as again:
                error = again
            return replace(self.last, note=f"{error}; trying again")
        self.last_answer = time.monotonic()
        return found

    def _cells(self, run: Any) -> tuple[list[CellProgress], bool]:
        if run.run_id not in self.roots:
            self.roots[run.run_id] = root_of(self.site, run)
        root = self.roots[run.run_id]
        if root is None:
            return [], False
        since = run.created_at.timestamp() - SKEW_SECONDS if run.created_at else 0.0
        cells, beats = root.progress(since)
        if str(run.state) in TERMINAL:
            cells = [_lost(cell) for cell in cells]
        return cells, beats

    def _pods(self, runs: Sequence[str]) -> waiting.Pods:
        if self.kubernetes is None or not runs:
            return waiting.Pods()
        try:
            return waiting.look(self.kubernetes, self.site.kubernetes_namespace, runs)
        except (urllib3.exceptions.HTTPError, OSError):
            return waiting.Pods(note="the Kubernetes API does not answer; trying again")

    def _cancel_if_stuck(self, look: Look) -> None:
        """Cancels runs when nothing has worked for `max_pending` minutes."""
        unseen = self.kubernetes is None and not look.cells
        waits = "PENDING" in look.states.values() if unseen else not look.running
        if not waits or look.is_over:
            self.last_work = time.monotonic()
        minutes = (time.monotonic() - self.last_work) / 60
        if not self.max_pending or minutes <= self.max_pending or self.canceled:
            return
        self.canceled = True
        reasons = "; ".join(dict.fromkeys(look.waiting.values()))
        self.console.print(
            f"Canceled: nothing has run for MAX_PENDING={self.max_pending:g} minutes"
            + (f": {reasons}" if reasons else ""),
            markup=False,
        )
        failed: list[UserError] = []
        for run, state in look.states.items():
            try:
                if state not in TERMINAL:
                    with clients.plain_errors(self.site, "cancel the run"):
                        self.client.terminate_run(run)
            except UserError as error:
                failed.append(error)  # the other runs are to be canceled all the same
        if failed:
            raise failed[0]

    def lines(self, look: Look) -> dict[str, str]:
        """Returns what there is to tell, by what it is about."""
        told = {}
        for run in self.runs:
            words = f"run {run.label or run.run_id}: {look.states[run.run_id]}"
            told[run.run_id] = ": ".join(filter(None, (words, look.errors.get(run.run_id, ""))))
        if look.tasks and not look.cells:
            counts = ", ".join(f"{n} {state.lower()}" for state, n in sorted(look.tasks.items()))
            told["tasks"] = f"tasks: {counts}"
        cells = {cell.cell for cell in look.cells}
        others = {name: why for name, why in look.waiting.items() if name not in cells}
        told |= {f"waiting {name}": f"waiting: {name}: {why}" for name, why in others.items()}
        if look.note:
            told["note"] = look.note
        return told

    def tell(self, look: Look) -> None:
        """Prints what has changed, and each running cell once a minute."""
        now, clock = time.monotonic(), time.strftime("%H:%M:%S")
        told = {key: (text, text, False) for key, text in self.lines(look).items()}
        for cell in look.cells:
            words = f"{cell.state} {cell.reason}"
            told[cell.cell] = (words, progress.line(cell), cell.is_running)
        for key, (words, text, repeats) in told.items():
            before, last = self.shown.get(key, ("waiting ", 0.0))
            if words != before or (repeats and now - last >= PLAIN_SECONDS):
                self.console.print(f"{clock} {text}", markup=False)
                self.shown[key] = (words, now)
        self.console.file.flush()

    def drawn(self, look: Look) -> Group:
        """Lays a look out for a terminal."""
        parts: list[Any] = []
        if look.cells:
            elapsed = time.monotonic() - self.began
            height = self.console.height - len(look.waiting) - len(self.runs) - 2
            parts.append(progress.table(look.cells, elapsed, max(8, height)))
            idle = (progress.WAITING, progress.INTERRUPTED)
            reasons = Counter(c.reason for c in look.cells if c.state in idle and c.reason)
            parts += [Text(f"{n} waiting: {why}", style="yellow") for why, n in reasons.items()]
        parts += [Text(text) for text in self.lines(look).values()]
        return Group(*parts)


def _conclude(watcher: _Watcher, look: Look, out: Path) -> int:
    """Says how it ended and fetches the report; returns the exit code."""
    site, console = watcher.site, watcher.console
    for cell in look.cells:
        if cell.state == progress.FAILED:
            console.print(f"failed: {cell.cell}: {cell.reason}", markup=False)
    for run in watcher.runs:
        words = f"{look.states[run.run_id]}: {run.label or run.run_id}"
        error = look.errors.get(run.run_id, "")
        console.print(words + (f": {error}" if error else ""), markup=False)
        console.print(f"  {clients.run_link(site, run.run_id)}", markup=False)
    first = watcher.runs[0]
    root = watcher.roots.get(first.run_id)
    if root is None:
        words = (
            f"in the KFP UI, or below {site.results}/sweeps (results_mount in site.yaml is empty)"
        )
    else:
        words = root.fetch_report(out / "cluster" / (first.label or first.run_id))
    console.print(f"Report: {words}", markup=False)
    succeeded = all(state == "SUCCEEDED" for state in look.states.values())
    return EXIT_OK if succeeded else EXIT_FAILED


def _tasks(run: Any) -> list[Any]:
    return (run.run_details.task_details or []) if run.run_details else []


def _with_reason(cell: CellProgress, reasons: Mapping[str, str]) -> CellProgress:
    if cell.cell not in reasons:
        return cell
    return replace(_lost(cell), reason=cell.reason or reasons[cell.cell])


def _lost(cell: CellProgress) -> CellProgress:
    """Says of a cell without a pod that it does not run, however young its heartbeat is."""
    return replace(cell, state=progress.INTERRUPTED) if cell.is_running else cell
