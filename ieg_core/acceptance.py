# SPDX-License-Identifier: Apache-2.0
"""How a run ends: which cells are missing, what was reproduced; and how a person accepts a run.

<root>/sweeps/<sweep>/report/verdict.json   the verdicts of a run that was to be judged
<root>/accepted/<schedule>.json             the rows that a schedule's next runs are held against

A run never accepts itself, not even one that reproduced a published figure: a slow drift would
otherwise move its own yardstick. `make accept SCHEDULE=<name>` takes the newest run of a schedule.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ieg_core import reproduction
from ieg_core.errors import UserError
from ieg_core.published import PUBLISHED
from ieg_core.report.cells import FINISHED, Row, load_sweep
from ieg_core.results import ACCEPTED, SCHEDULED, read_json, sweep_folder, write_json_atomic

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
TEXT_CHARACTERS = 4000


def judge_sweep(
    root: Path, sweep: str, *, results: str, schedule: str, tolerance: float, accepted: str
) -> tuple[str, list[str]]:
    """Judges a reported sweep and writes its verdict.json.

    Args:
      root: The results root of this run, its namespace included.
      sweep: The sweep's name.
      results: The results root without the namespace, where accepted runs lie.
      schedule: The schedule's name; "" for none.
      tolerance: Points of per cent; negative: nothing is judged.
      accepted: Another results.json to hold the cells against; "" for the schedule's accepted run.

    Returns:
      The verdicts as Markdown and those that fail the run, one line each; nothing of either if
      nothing is judged.

    Raises:
      UserError: The accepted run cannot be read.
    """
    if tolerance < 0:
        return "", []
    place = accepted or (f"{results}/{ACCEPTED}/{schedule}.json" if schedule else "")
    old = reproduction.accepted_rows(_read(place), place) if place else []
    if accepted and not old:
        raise UserError(f"accepted={accepted!r}: expected a results.json with rows")
    verdicts = reproduction.judge(load_sweep(root, sweep).rows, PUBLISHED, tolerance, old)
    path = sweep_folder(root, sweep) / "report" / "verdict.json"
    write_json_atomic(path, reproduction.as_json(verdicts, schedule=schedule))
    title = f"# Reproduction{f' {schedule}' if schedule else ''}"
    text = f"{title}, tolerance {tolerance:g} points\n\n{reproduction.markdown(verdicts)}\n"
    return text, reproduction.failures(verdicts)


def failures_text(lost: str, wrong: Sequence[str]) -> str:
    """Says in one line what fails a run; "" if nothing does.

    Args:
      lost: Which cells did not finish and why.
      wrong: The verdicts that fail the run.
    """
    parts = [f"cells did not finish: {lost}"] if lost else []
    return "; ".join([*parts, *wrong])[: 2 * TEXT_CHARACTERS]


def accept(results: Path, schedule: str, run: str = "") -> str:
    """Makes a scheduled run the one that the schedule's next runs are held against.

    Args:
      results: The results root.
      schedule: The schedule's name.
      run: The run's id; "" for the newest that was reported.

    Returns:
      What was accepted, in words.

    Raises:
      UserError: No such schedule or run, or cells of it did not finish.
    """
    if not NAME.fullmatch(schedule):
        raise UserError(f"SCHEDULE={schedule!r}: expected a schedule's name, such as nightly")
    folder = results / SCHEDULED / schedule
    reports = {
        path.parents[3].name: path
        for path in sorted(folder.glob("*/sweeps/*/report/results.json"), key=_written)
    }
    if not reports:
        known = sorted(path.name for path in (results / SCHEDULED).glob("*") if path.is_dir())
        raise UserError(
            f"no run of the schedule {schedule!r} was reported under {folder}; "
            f"schedules there: {', '.join(known) or 'none'}"
        )
    if run and run not in reports:
        raise UserError(f"RUN={run!r} is no reported run of {schedule}: {', '.join(reports)}")
    chosen = run or list(reports)[-1]
    path = reports[chosen]
    rows: list[Row] = reproduction.accepted_rows(_read(str(path)), str(path))
    lost = [row for row in rows if row["status"] != FINISHED]
    if lost or not rows:
        raise UserError(
            f"{len(lost)} of {len(rows)} cells of {schedule}/{chosen} did not finish: "
            "expected a complete run; name another by RUN=…"
        )
    document = {
        "schema": 1,
        "run": {
            "namespace": f"{SCHEDULED}/{schedule}/{chosen}",
            "sweep": path.parents[1].name,
            "accepted": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "cells": rows,
    }
    write_json_atomic(results / ACCEPTED / f"{schedule}.json", document)
    return f"{schedule}: accepted {chosen}, {len(rows)} cells, for the runs to come"


def _written(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime, str(path)


def _read(place: str) -> Any:
    return read_json(Path(place))
