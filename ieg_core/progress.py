# SPDX-License-Identifier: Apache-2.0
"""How far the cells of a sweep are, read from the results root and shown while they run."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ieg_core.errors import UserError
from ieg_core.results import cell_folder, read_json

WAITING, FINISHED, FAILED = "waiting", "finished", "failed"
INTERRUPTED = "interrupted"
COUNTED = ("training", FINISHED, FAILED, INTERRUPTED)
LIVE_SECONDS = 0.5
PLAIN_SECONDS = 10.0
PIPED_WIDTH = 400  # whole names for whoever reads on
LEAST_NAME, GAP = 24, 2


@dataclass(frozen=True)
class CellProgress:
    """How far one cell is.

    Attributes:
      cell: Its name.
      state: "waiting", "starting", "training", "evaluating", "finished", "failed", or
        "interrupted": something was done, but no process works on it.
      step: Steps done.
      num_steps: Steps in all; 0 if not yet known.
      steps_per_second: Lately; 0 if not yet known.
      accuracy: The latest test accuracy of the moving average, in [0, 1]; None before the first.
      reason: Why it failed, else "".
    """

    cell: str
    state: str
    step: int = 0
    num_steps: int = 0
    steps_per_second: float = 0.0
    accuracy: float | None = None
    reason: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in (FINISHED, FAILED)

    @property
    def is_running(self) -> bool:
        """Whether a process works on it."""
        return self.state not in (WAITING, FINISHED, FAILED, INTERRUPTED)

    @property
    def seconds_left(self) -> float | None:
        """Seconds of training left at the present rate; None if that is not known."""
        if self.state != "training" or self.steps_per_second <= 0:
            return None
        return max(0, self.num_steps - self.step) / self.steps_per_second


def read_cell(results: Path, cell: str, since: float) -> CellProgress:
    """Reads how far a cell is.

    Args:
      results: The results root.
      cell: The cell's name.
      since: Unix time at which this sweep began: progress and failures older than that are an
        earlier attempt's.

    Returns:
      Its progress. A file that is missing or being replaced counts as not there.
    """
    folder = cell_folder(results, cell)
    failure = folder / "failure.json"
    return from_files(
        cell,
        _read(folder / "result.json"),
        _read(folder / "progress.json"),
        _read(failure) if _modified(failure) >= since else {},
        since,
    )


def from_files(
    cell: str,
    result: Mapping[str, Any],
    progress: Mapping[str, Any],
    failure: Mapping[str, Any],
    since: float,
) -> CellProgress:
    """Says how far a cell is, from what its files hold; {} for a file that is not there.

    Args:
      cell: The cell's name.
      result: result.json.
      progress: progress.json.
      failure: failure.json, if it is not an earlier attempt's.
      since: Unix time before which progress is an earlier attempt's.

    Returns:
      Its progress.
    """
    if result:
        steps = int(result.get("steps") or 0)
        rate = float(result.get("steps_per_second") or 0)
        accuracy = result.get("accuracy_ema_last")
        return CellProgress(cell, FINISHED, steps, steps, rate, accuracy)
    step, num_steps = int(progress.get("step") or 0), int(progress.get("num_steps") or 0)
    rate = float(progress.get("steps_per_second") or 0)
    accuracy = progress.get("accuracy_ema")
    if failure:
        reason = str(failure.get("reason", "unknown"))
        return CellProgress(cell, FAILED, step, num_steps, rate, accuracy, reason)
    fresh = float(progress.get("updated") or 0) >= since
    phase = str(progress.get("phase") or WAITING) if fresh else WAITING
    # The training is over, but the cell is only once its result lies there.
    phase = "evaluating" if phase == FINISHED else phase
    return CellProgress(cell, phase, step, num_steps, rate, accuracy)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, UserError):
        return {}
    return value if isinstance(value, dict) else {}


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def title(cell: str) -> str:
    """Returns a cell's name without the digest at its end."""
    return cell.rpartition("-")[0] or cell


def duration(seconds: float | None) -> str:
    """Formats seconds as 0:07, 12:30 or 1:02:03; "" if unknown."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def accuracy_text(accuracy: float | None) -> str:
    """Formats an accuracy as a percentage; "" if there is none."""
    return "" if accuracy is None else f"{100 * accuracy:.1f} %"


def summary(cells: Sequence[CellProgress], elapsed: float | None, expected: float = 0.0) -> str:
    """Says in one line how far all cells are.

    Args:
      cells: All cells.
      elapsed: Seconds since the start; None if that is not known.
      expected: Seconds that all was estimated to take; 0 if that is not known.

    Returns:
      For example "2 of 6 cells finished, 2 running, 0:36 of about 1:20".
    """
    count = {state: sum(c.state == state for c in cells) for state in (FINISHED, FAILED)}
    running = sum(c.is_running for c in cells)
    parts = [f"{count[FINISHED]} of {len(cells)} cells finished", f"{running} running"]
    if count[FAILED]:
        parts.append(f"{count[FAILED]} failed")
    if elapsed is None:
        return ", ".join(parts)
    time_text = f"of about {duration(expected)}" if expected > elapsed else "elapsed"
    return ", ".join([*parts, f"{duration(elapsed)} {time_text}"])


def line(cell: CellProgress) -> str:
    """Says in one line how far a cell is."""
    text = f"{title(cell.cell)}: {cell.state}"
    if cell.state == "training" and cell.num_steps:
        text += f" step {cell.step}/{cell.num_steps}"
    if cell.state == "training" and cell.steps_per_second:
        text += f", {cell.steps_per_second:.1f} steps/s, {duration(cell.seconds_left)} left"
    if cell.accuracy is not None:
        text += f", accuracy {accuracy_text(cell.accuracy)}"
    return f"{text}: {cell.reason}" if cell.reason else text


def table(
    cells: Sequence[CellProgress],
    elapsed: float | None,
    height: int,
    expected: float = 0.0,
    width: int = PIPED_WIDTH,
) -> Group:
    """Lays out the cells for a terminal, a line each, the summary below them.

    Args:
      cells: All cells, in order.
      elapsed: Seconds since the start; None if that is not known.
      height: Lines of the terminal. Where the cells are more, those that run come first, then
        those that failed.
      expected: Seconds that all was estimated to take; 0 if that is not known.
      width: Columns of the terminal. Where the names have too little room, the rates and what is
        left are not shown, and of a name its end.

    Returns:
      What rich draws.
    """
    room = max(1, height - 4)
    hidden = max(0, len(cells) - room)
    if hidden:
        cells_shown = sorted(cells, key=lambda c: (not c.is_running, c.state != FAILED))[:room]
    else:
        cells_shown = list(cells)
    columns = {
        "state": [cell.state for cell in cells_shown],
        "step": [
            f"{cell.step}/{cell.num_steps}" if cell.num_steps and cell.state in COUNTED else ""
            for cell in cells_shown
        ],
        "steps/s": [
            f"{cell.steps_per_second:.1f}" if cell.steps_per_second else "" for cell in cells_shown
        ],
        "left": [duration(cell.seconds_left) for cell in cells_shown],
        "accuracy": [accuracy_text(cell.accuracy) for cell in cells_shown],
    }
    names = [title(cell.cell) for cell in cells_shown]

    def room_for_names() -> int:
        taken = sum(GAP + max(map(len, (name, *texts))) for name, texts in columns.items())
        return width - taken

    for name in ("steps/s", "left"):
        if room_for_names() < min(LEAST_NAME, max(map(len, names), default=0)):
            del columns[name]
    room = max(1, room_for_names())
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("cell", no_wrap=True)
    for name in columns:
        grid.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    styles = {FINISHED: "green", FAILED: "red", WAITING: "dim", INTERRUPTED: "yellow"}
    for cell, name, *texts in zip(cells_shown, names, *columns.values(), strict=True):
        # Names differ in their ends: method and seed.
        name = name if len(name) <= room else f"…{name[len(name) - room + 1 :]}"
        grid.add_row(*map(Text, (name, *texts)), style=styles.get(cell.state, ""))
    more = f"; {hidden} more not shown" if hidden else ""
    return Group(grid, Text(summary(cells, elapsed, expected) + more, style="bold"))


def watch(
    results: Path,
    cells: Sequence[str],
    is_alive: Callable[[], bool],
    *,
    expected: float = 0.0,
    stream: IO[str] | None = None,
    plain_seconds: float = PLAIN_SECONDS,
    read: Callable[[], list[CellProgress]] | None = None,
) -> list[CellProgress]:
    """Shows how far the cells are until the process that runs them has ended.

    On a terminal one table is redrawn; elsewhere every change of state is a line, and so is every
    running cell each `plain_seconds`.

    Args:
      results: The results root.
      cells: The cells' names, in the order to show.
      is_alive: Whether the process that runs them still runs.
      expected: Seconds that all was estimated to take; 0 if that is not known.
      stream: Where to write; standard output by default.
      plain_seconds: Seconds between the plain lines of a running cell.
      read: Reads how far they are; by default `read_cell` with this call's start.

    Returns:
      How far the cells were at the end.
    """
    console = Console(file=stream or sys.stdout)
    began = time.time()
    read = read or (lambda: [read_cell(results, cell, began) for cell in cells])

    if not console.is_terminal:
        return _watch_plainly(console.file, read, is_alive, plain_seconds)
    with Live(console=console, auto_refresh=False) as live:
        alive = True
        while alive:
            alive = is_alive()
            elapsed = time.time() - began
            drawn = table(read(), elapsed, console.height, expected, console.width)
            live.update(drawn, refresh=True)
            if alive:
                time.sleep(LIVE_SECONDS)
    return read()


def _watch_plainly(
    stream: IO[str],
    read: Callable[[], list[CellProgress]],
    is_alive: Callable[[], bool],
    plain_seconds: float,
) -> list[CellProgress]:
    cells = read()
    shown = {cell.cell: (cell.state, 0.0) for cell in cells}
    alive = True
    while alive:
        alive = is_alive()
        cells = read()
        now = time.monotonic()
        for cell in cells:
            state, last = shown[cell.cell]
            if cell.state != state or (cell.is_running and now - last >= plain_seconds):
                print(f"{time.strftime('%H:%M:%S')} {line(cell)}", file=stream, flush=True)
                shown[cell.cell] = (cell.state, now)
        if alive:
            time.sleep(LIVE_SECONDS)
    return cells
