# SPDX-License-Identifier: Apache-2.0
"""How a run ends: which trials are missing, what was reproduced; and how a person accepts a run.

A run never accepts itself, not even one that reproduced a published figure: a slow drift would
otherwise move its own yardstick. `make accept SCHEDULE=<name>` takes the newest run of a schedule.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.recipes.published import PUBLISHED
from ieg_core.report import reproduction
from ieg_core.report.trials import FINISHED, load_sweep
from ieg_core.store import gcs
from ieg_core.store.layout import SCHEDULED, sweep_folder
from ieg_core.store.records import AcceptedRecord, AcceptedRun, ReportRecord, below

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
REPORT = re.compile(rf"{SCHEDULED}/([^/]+)/([^/]+)/sweeps/([^/]+)/{re.escape(ReportRecord.NAME)}")
TEXT_CHARACTERS = 4000


def judge_sweep(
    root: Path, sweep: str, *, results: str, schedule: str, tolerance: float, accepted: str
) -> tuple[str, list[str]]:
    """Judges a reported sweep and writes its verdict.json.

    Args:
      root: The results root of this run, its namespace included.
      sweep: The sweep's name.
      results: The results root without the namespace, a folder or gs://…, where accepted runs lie.
      schedule: The schedule's name; "" for none.
      tolerance: Points of per cent; negative: nothing is judged.
      accepted: Another results.json to hold the trials against; "" for the schedule's accepted run.

    Returns:
      The verdicts as Markdown and those that fail the run, one line each; nothing of either if
      nothing is judged.

    Raises:
      UserError: The accepted run cannot be read.
    """
    if tolerance < 0:
        return "", []
    old = []
    if accepted:
        old = reproduction.accepted_rows(ReportRecord.load(accepted), accepted)
        if not old:
            raise UserError(f"accepted={accepted!r}: expected a results.json with rows")
    elif schedule:
        place = below(results, AcceptedRecord.name(schedule))
        old = reproduction.accepted_rows(ReportRecord.load(place), str(place))
    verdicts = reproduction.judge(load_sweep(root, sweep).rows, PUBLISHED, tolerance, old)
    reproduction.as_record(verdicts, schedule=schedule).write(sweep_folder(root, sweep))
    title = f"# Reproduction{f' {schedule}' if schedule else ''}"
    text = f"{title}, tolerance {tolerance:g} points\n\n{reproduction.markdown(verdicts)}\n"
    return text, reproduction.failures(verdicts)


def failures_text(lost: str, wrong: Sequence[str]) -> str:
    """Says in one line what fails a run; "" if nothing does.

    Args:
      lost: Which trials did not finish and why.
      wrong: The verdicts that fail the run.
    """
    parts = [f"trials did not finish: {lost}"] if lost else []
    return "; ".join([*parts, *wrong])[: 2 * TEXT_CHARACTERS]


def accept(results: str, schedule: str, run: str = "") -> str:
    """Makes a scheduled run the one that the schedule's next runs are held against.

    Args:
      results: The results root, a folder or gs://bucket/prefix.
      schedule: The schedule's name.
      run: The run's id; "" for the newest that was reported.

    Returns:
      What was accepted, in words.

    Raises:
      UserError: No such schedule or run, or trials of it did not finish.
    """
    if not NAME.fullmatch(schedule):
        raise UserError(f"SCHEDULE={schedule!r}: expected a schedule's name, such as nightly")
    reports = _reports(results)
    runs = [report for report in reports if report[1] == schedule]
    if not runs:
        known = sorted({name for _, name, _, _ in reports})
        raise UserError(
            f"no run of the schedule {schedule!r} was reported in {results}; "
            f"schedules there: {', '.join(known) or 'none'}"
        )
    chosen = [report for report in runs if run in ("", report[2])]
    if not chosen:
        there = ", ".join(name for _, _, name, _ in runs)
        raise UserError(f"RUN={run!r} is no reported run of {schedule}: {there}")
    _, _, found, sweep = chosen[-1]
    namespace = f"{SCHEDULED}/{schedule}/{found}"
    place = below(results, f"{namespace}/sweeps/{sweep}")
    rows = reproduction.accepted_rows(ReportRecord.read(place), f"{place}/{ReportRecord.NAME}")
    lost = [row for row in rows if row["status"] != FINISHED]
    if lost or not rows:
        raise UserError(
            f"{len(lost)} of {len(rows)} trials of {schedule}/{found} did not finish: "
            "expected a complete run; name another by RUN=…"
        )
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kept = AcceptedRun(namespace=namespace, sweep=sweep, accepted=moment)
    AcceptedRecord(run=kept, trials=rows).write(results, schedule)
    return f"{schedule}: accepted {found}, {len(rows)} trials, for the runs to come"


def _reports(results: str) -> list[tuple[float, str, str, str]]:
    """Lists (when it was written, schedule, run, sweep) of every scheduled report, oldest first."""
    if gcs.is_url(results):
        listed = gcs.list_files(results, f"{SCHEDULED}/")
        written = {name: stored.updated for name, stored in listed.items()}
    else:
        paths = Path(results).glob(f"{SCHEDULED}/*/*/sweeps/*/{ReportRecord.NAME}")
        written = {p.relative_to(results).as_posix(): p.stat().st_mtime for p in paths}
    found = [(moment, REPORT.fullmatch(name)) for name, moment in written.items()]
    return sorted((moment, match[1], match[2], match[3]) for moment, match in found if match)
