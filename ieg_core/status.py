# SPDX-License-Identifier: Apache-2.0
"""`ieg status`: how far a sweep is, asked from another terminal than the one that runs it."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ieg_core import progress
from ieg_core.errors import UserError
from ieg_core.ownership import STALE_SECONDS
from ieg_core.progress import INTERRUPTED, WAITING, CellProgress
from ieg_core.results import find_run, planned_cells


def find_cells(place: Path) -> tuple[Path, list[str]]:
    """Finds the cells that a folder stands for.

    Args:
      place: A results root (its sweep that was started last), a sweep's folder or a cell's.

    Returns:
      The results root and the names of the cells, in the order in which they start.

    Raises:
      UserError: The folder is none of these.
    """
    folder = find_run(place)
    plans = sorted(folder.glob("sweeps/*/plan.json"), key=lambda path: path.stat().st_mtime)
    if plans:
        folder = plans[-1].parent
    planned = planned_cells(folder) if folder.parent.name == "sweeps" else None
    if planned is not None:
        return folder.parent.parent, planned
    if folder.parent.name == "cells" and (folder / "config.json").exists():
        return folder.parent.parent, [folder.name]
    raise UserError(
        f"{place} holds no sweep: expected a results root (runs), a sweep's folder "
        "(runs/sweeps/…) or a cell's (runs/cells/…)"
    )


def read_cells(root: Path, cells: Sequence[str], now: float) -> list[CellProgress]:
    """Reads how far cells are, whoever runs them.

    A cell whose heartbeat stopped is "interrupted"; one that says why it failed has failed.

    Args:
      root: The results root.
      cells: Their names.
      now: Unix time.

    Returns:
      Their progress.
    """
    found = []
    for cell in cells:
        each = progress.read_cell(root, cell, 0.0)
        if each.is_running and not progress.read_cell(root, cell, now - STALE_SECONDS).is_running:
            each = replace(each, state=INTERRUPTED)
        found.append(each)
    return found


def show(place: Path, *, watch: bool = False) -> list[CellProgress]:
    """Prints how far a sweep is: once, or again and again until nothing of it runs any more.

    Args:
      place: What `find_cells` takes.
      watch: Whether to go on while a cell runs.

    Returns:
      How far the cells were at the end.
    """
    root, cells = find_cells(place)
    console = Console(width=None if sys.stdout.isatty() else progress.PIPED_WIDTH, highlight=False)

    def read() -> list[CellProgress]:
        return read_cells(root, cells, time.time())

    found = read()
    watched = watch and any(cell.is_running for cell in found)
    if watched:
        found = progress.watch(
            root, cells, lambda: any(cell.is_running for cell in read()), read=read
        )
    if not (watched and console.is_terminal):  # where the last table still stands
        drawn = progress.table(found, None, len(cells) + 4, width=console.width)
        console.print(drawn)
    for cell in found:
        if cell.reason:
            console.print(progress.line(cell), style="red", markup=False, soft_wrap=True)
    idle = sum(cell.state in (WAITING, INTERRUPTED) for cell in found)
    if idle and not any(cell.is_running for cell in found):
        print(f"Nothing runs now; {idle} to go: the command that started it goes on with it.")
    return found
