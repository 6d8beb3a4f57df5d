# SPDX-License-Identifier: Apache-2.0
"""The verdict on a scheduled run, and its acceptance by a person.

A run never accepts itself, not even one that reproduced a published figure: otherwise a slow drift
would move its own reference. `make accept SCHEDULE=<name>` accepts the newest run of a schedule.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.recipes.published import PUBLISHED
from ieg_core.report import reproduction
from ieg_core.report.summary import Group, group_trials
from ieg_core.report.trials import FINISHED, Row, Trial
from ieg_core.store import gcs
from ieg_core.store.layout import REPORT_JSON, SCHEDULED, relative_sweep
from ieg_core.store.record import below
from ieg_core.store.records import AcceptedRecord, AcceptedRun, ReportRecord

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
NAMESPACE_SWEEP = f"{SCHEDULED}/{{}}/{{}}/{relative_sweep('{}')}"
REPORT = re.compile(rf"{NAMESPACE_SWEEP.format(*3 * ['([^/]+)'])}/{re.escape(ReportRecord.NAME)}")
TEXT_CHARACTERS = 4000


def judge_report(
    groups: Sequence[Group],
    folder: Path,
    *,
    results: str,
    schedule: str,
    tolerance: float,
    accepted: str,
) -> tuple[str, list[str]]:
    """Judges a sweep by its report and writes verdict.json.

    Args:
      groups: The groups of the report.
      folder: The report's folder.
      results: The results root without the namespace, a folder or gs://…, with the accepted runs.
      schedule: The schedule's name; "" for none.
      tolerance: Percentage points; negative to judge nothing.
      accepted: Another results.json to compare with; "" for the schedule's accepted run.

    Returns:
      The verdicts as Markdown, and those that fail the run, one line each; both empty if nothing
      is judged.

    Raises:
      UserError: When the accepted run cannot be read.
    """
    if tolerance < 0:
        return "", []
    rows: list[Row] = []
    if accepted:
        rows = reproduction.accepted_rows(ReportRecord.load(accepted), accepted)
        if not rows:
            raise UserError(f"received accepted={accepted!r}: expected a {REPORT_JSON} with rows")
    elif schedule:
        place = below(results, AcceptedRecord.name(schedule))
        rows = reproduction.accepted_rows(ReportRecord.load(place), str(place))
    verdicts = reproduction.judge(groups, PUBLISHED, tolerance, group_trials(map(Trial, rows)))
    reproduction.as_record(verdicts, schedule=schedule).write(folder.parent)
    title = f"# Reproduction{f' {schedule}' if schedule else ''}"
    text = f"{title}, tolerance {tolerance:g} points\n\n{reproduction.markdown(verdicts)}\n"
    return text, reproduction.failures(verdicts)


def failures_text(lost: str, wrong: Sequence[str]) -> str:
    """Formats what fails a run as one line; "" if nothing does.

    Args:
      lost: The trials that did not finish, with the reasons.
      wrong: The verdicts that fail the run.
    """
    parts = [f"trials did not finish: {lost}"] if lost else []
    return "; ".join([*parts, *wrong])[: 2 * TEXT_CHARACTERS]


def accept(results: str, schedule: str, run: str = "") -> str:
    """Accepts a scheduled run: the schedule's next runs are compared with it.

    Args:
      results: The results root, a folder or gs://bucket/prefix.
      schedule: The schedule's name.
      run: The run's id; "" for the newest one with a report.

    Returns:
      A message that names the accepted run.

    Raises:
      UserError: When there is no such schedule or run, or trials of it did not finish.
    """
    if not NAME.fullmatch(schedule):
        raise UserError(
            f"received SCHEDULE={schedule!r}: expected a schedule's name, such as nightly"
        )
    reports = _reports(results)
    runs = [report for report in reports if report[1] == schedule]
    if not runs:
        known = sorted({name for _, name, _, _ in reports})
        raise UserError(
            f"received SCHEDULE={schedule!r}, of which no run has a report in {results}: expected "
            f"one of {', '.join(known) or 'none so far'}"
        )
    chosen = [report for report in runs if run in ("", report[2])]
    if not chosen:
        names = ", ".join(name for _, _, name, _ in runs)
        raise UserError(
            f"received RUN={run!r}: expected a run of {schedule} with a report: {names}"
        )
    _, _, run, sweep = chosen[-1]
    namespace = f"{SCHEDULED}/{schedule}/{run}"
    place = below(results, NAMESPACE_SWEEP.format(schedule, run, sweep))
    rows = reproduction.accepted_rows(ReportRecord.read(place), f"{place}/{ReportRecord.NAME}")
    lost = [row for row in rows if row["status"] != FINISHED]
    if lost or not rows:
        raise UserError(
            f"{len(lost)} of {len(rows)} trials of {schedule}/{run} did not finish: "
            "expected a complete run; choose another with RUN=…"
        )
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    accepted = AcceptedRun(namespace=namespace, sweep=sweep, accepted=moment)
    AcceptedRecord(run=accepted, trials=rows).write(results, schedule)
    return f"{schedule}: accepted {run}, {len(rows)} trials"


def _reports(results: str) -> list[tuple[float, str, str, str]]:
    """Lists (time written, schedule, run, sweep) of every scheduled report, oldest first."""
    if gcs.is_url(results):
        listed = gcs.list_files(results, f"{SCHEDULED}/")
        written = {name: stored.updated for name, stored in listed.items()}
    else:
        paths = Path(results).glob(f"{NAMESPACE_SWEEP.format(*'***')}/{ReportRecord.NAME}")
        written = {p.relative_to(results).as_posix(): p.stat().st_mtime for p in paths}
    matches = [(seconds, REPORT.fullmatch(name)) for name, seconds in written.items()]
    return sorted((seconds, match[1], match[2], match[3]) for seconds, match in matches if match)
