# SPDX-License-Identifier: Apache-2.0
"""One run of a pipeline: where under the results root it works, and which cells are its part.

<root>/[<namespace>/]runs/<label>.json   what a run was started for, for those who follow it
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.results import cell_folder, read_json, write_json_atomic

SCHEMA = 1
RUN = "{run}"
"""Stands for the run's own id in a namespace: scheduled runs differ in nothing else."""
RUN_ID = "IEG_RUN"
"""Environment variable: the run's id, which each attempt at a cell writes into its claim."""
ATTEMPTS = "IEG_ATTEMPTS"
"""Environment variable: how many attempts a run has at a cell; unset: any number."""
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def results_root(results: str, namespace: str, run: str) -> str:
    """Returns where a run keeps its results.

    Args:
      results: The results root, a folder or gs://bucket/prefix.
      namespace: A part of it that only certain runs read and write, "" for the whole; "{run}" in
        it stands for the run's id.
      run: The run's id.

    Raises:
      UserError: The namespace is no relative path of plain names.
    """
    if not namespace:
        return results
    parts = namespace.replace(RUN, run).split("/")
    if not all(map(NAME.fullmatch, parts)):
        raise UserError(
            f"results_namespace={namespace!r}: expected names of letters, digits, '.', '_' and '-' "
            f"separated by '/', such as weekly/{RUN}"
        )
    return f"{results.rstrip('/')}/{'/'.join(parts)}"


def part_of(cells: Sequence[str], part: int, parts: int, most: int) -> list[str]:
    """Returns the cells of one of several runs of a sweep: every `parts`-th, from the `part`-th.

    So dealt out, long and short cells are spread evenly: a plan lists the longest first.

    Args:
      cells: All cells of the sweep.
      part: Which run, from 1.
      parts: How many runs.
      most: Largest number of cells that one run may have.

    Raises:
      UserError: There is no such part, it would have no cell, or too many.
    """
    if not 1 <= part <= parts:
        raise UserError(f"part={part} of parts={parts}: expected a part from 1 to {max(parts, 1)}")
    if parts > len(cells):
        raise UserError(f"parts={parts}: the sweep has {len(cells)} cells, ask for as many at most")
    found = list(cells[part - 1 :: parts])
    if len(found) > most:
        raise UserError(
            f"{len(found)} cells in one run, at most {most} are possible: start "
            f"parts={-(-len(cells) // most)} runs, with part=1, 2, and so on"
        )
    return found


def write_run(
    root: Path, label: str, sweep: str, cells: Sequence[str], part: int, parts: int
) -> None:
    """Writes down what a run was started for; does nothing without a label.

    Args:
      root: The results root, namespace included.
      label: The run's name, as chosen by who started it.
      sweep: The sweep's name.
      cells: The cells of this run.
      part: Which run of the sweep this is, from 1.
      parts: How many there are.

    Raises:
      UserError: The label is no plain name.
    """
    if not label:
        return
    if not NAME.fullmatch(label):
        raise UserError(f"run_label={label!r}: expected letters, digits, '.', '_' and '-'")
    record = {"schema": SCHEMA, "sweep": sweep, "cells": list(cells), "part": part, "parts": parts}
    write_json_atomic(root / "runs" / f"{label}.json", record)


def give_up(root: Path, cell: str, run: str) -> bool:
    """Records the failure of a cell whose pod this run has lost as often as it may.

    A pod that is out of memory, out of time or without its node takes down all that could have
    said so. KFP tries it again, and would in the end fail the whole loop, with the cells that are
    still to come and the report. So the pod that finds all attempts spent trains no more.

    Args:
      root: The results root, namespace included.
      cell: The cell.
      run: The run's id.

    Returns:
      Whether the cell was given up.
    """
    allowed = int(os.environ.get(ATTEMPTS) or 0)
    folder = cell_folder(root, cell)
    done = any((folder / name).exists() for name in ("result.json", "training.json"))
    lost = _lost_attempts(folder, run)
    if not allowed or lost < allowed or done:
        return False
    times = "once" if lost == 1 else f"{lost} times"
    progress = read_json(folder / "progress.json") or {}
    failure = {
        "phase": "training",
        "reason": f"this run lost its pod {times}: killed for memory, out of time or without its "
        "node; see resources, time_limit and gpu.spot in the site file",
        "step": progress.get("step", 0),
        "log": "",
    }
    write_json_atomic(folder / "failure.json", failure)
    return True


def _lost_attempts(folder: Path, run: str) -> int:
    """Returns how many attempts of a run at a cell ended without a word."""
    claims = [_read(path) for path in folder.glob("claims/*.json")]
    return sum(claim.get("run") == run and not claim.get("ended") for claim in claims)


def _read(path: Path) -> dict[str, object]:
    try:
        found = read_json(path)
    except (OSError, UserError):  # killed while it claimed the cell
        return {}
    return found if isinstance(found, dict) else {}
