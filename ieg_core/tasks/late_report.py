# SPDX-License-Identifier: Apache-2.0
"""Reports of sweeps whose run ended without one.

A run's report comes after its loop over the trials. KFP leaves it out when anything in the loop
fails for good: a pod evicted or lost too often, or one of KFP's own driver pods. The
results of the finished trials are in the results root all the same.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.report.write import write_report
from ieg_core.store import gcs, mirror
from ieg_core.store.layout import SWEEPS, relative_sweep, set_latest
from ieg_core.store.record import below
from ieg_core.store.records import PlanRecord, ReportRecord, RunRecord
from ieg_core.sweep import progress


def report_sweep(results: str, sweep: str) -> None:
    """Writes the report of a sweep, finished or not, from what its trials have stored.

    `latest` then names this sweep.

    Args:
      results: The results root, a folder or gs://bucket/prefix.
      sweep: The sweep's name.

    Raises:
      UserError: When there is no such sweep, or the results root cannot be read or written.
    """
    with mirror.sweep(results, sweep) as root:
        write_report(root, sweep)
        set_latest(root, sweep)


def unreported(results: str) -> list[str]:
    """Returns the names of the sweeps that are planned, but have no report."""
    wanted = (PlanRecord.NAME, ReportRecord.NAME)
    names: Iterable[str]
    if gcs.is_url(results):
        names = gcs.list_files(gcs.join(results, SWEEPS))
    else:
        folder = Path(results) / SWEEPS
        files = (path for name in wanted for path in folder.glob(f"*/{name}"))
        names = [path.relative_to(folder).as_posix() for path in files]
    planned, reported = ({n.split("/")[0] for n in names if n.endswith(f"/{w}")} for w in wanted)
    return sorted(planned - reported)


def report_unreported(results: str, besides: str = "") -> list[str]:
    """Writes the missing reports of a results root; `latest` stays.

    A sweep that runs will get its report from its own run, and one of which no trial has started,
    such as one that was refused as too long, has nothing to report.

    Args:
      results: The results root, a folder or gs://bucket/prefix.
      besides: Another sweep to leave out: the caller's.

    Returns:
      A line for each sweep: where its report is, or why there is none.
    """
    lines = []
    for sweep in unreported(results):
        if sweep == besides or not _has_ended(results, sweep):
            continue
        try:
            with mirror.sweep(results, sweep) as root:
                write_report(root, sweep)
        except (UserError, OSError) as error:
            lines.append(f"{sweep} has no report, and none can be written: {error}")
        else:
            lines.append(f"{sweep} had no report: written now")
    return lines


def _has_ended(results: str, sweep: str) -> bool:
    """Returns whether a trial of a sweep has started and none runs; True if its plan is damaged."""
    planned, problem = PlanRecord.look(below(results, relative_sweep(sweep)))
    if planned is None:
        return bool(problem)
    has_started = False
    for trial in planned.trials:
        seen = progress.read_trial(results, trial, since=0.0, now=time.time())
        if seen.is_running:
            return False
        has_started = has_started or seen.state != progress.WAITING
    return has_started


def find_sweep(results: str, run: str) -> str:
    """Returns the name of a run's sweep.

    Args:
      results: The results root, a folder or gs://bucket/prefix.
      run: A run's label, or of one that was split, without its "-part1"; or a sweep's name; or ""
        for the sweep that `latest` names.

    Raises:
      UserError: When there is no such run in the results root.
    """
    if not run:
        run = mirror.latest(results)
        if not run:
            raise UserError(f"{results} has no report yet: expected RUN=<a run's label>")
    for label in (run, f"{run}-part1"):
        record = RunRecord.look(results, label)[0]
        if record:
            return record.sweep
    if PlanRecord.look(below(results, relative_sweep(run)))[0]:
        return run
    raise UserError(
        f"RUN={run!r}: there is no such run in {results}: expected a label as `make sweep` printed "
        f"it, or the name of a folder in its {SWEEPS}/"
    )
