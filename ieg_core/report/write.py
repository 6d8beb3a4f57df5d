# SPDX-License-Identifier: Apache-2.0
"""Writes a sweep's report: results.json, results.csv, results.md and report.html."""

from collections.abc import Sequence
from pathlib import Path

from ieg_core.host.files import write_bytes_atomic
from ieg_core.report import join, tables
from ieg_core.report.html import page
from ieg_core.report.model import Report, summarize
from ieg_core.report.trials import load_sweep
from ieg_core.store.layout import REPORT_JSON, REPORT_PAGE, REPORT_ROWS, REPORT_TABLE, report_folder


def write_report(results_root: Path, sweep: str) -> Report:
    """Writes the report of a sweep, finished or not, into `layout.report_folder`.

    The files depend only on the results: a second report of the same results has the same bytes.

    Args:
      results_root: The results root.
      sweep: The sweep's name.

    Returns:
      The report.

    Raises:
      UserError: When there is no such sweep, its plan is damaged, or a file cannot be written.
    """
    while True:
        report = summarize(load_sweep(results_root, sweep))
        _write(report_folder(results_root, sweep), report)
        # Another run of the same sweep may have written its report, with trials that finished in
        # the meantime, before this one.
        if all(trial.is_current for trial in report.sweep.trials):
            return report


def write_joined(places: Sequence[Path], folder: Path) -> Report:
    """Writes one report of several sweeps; of two, it also shows what differs between them.

    Args:
      places: Folders that `join.find_sweep` takes.
      folder: The folder to write.

    Returns:
      The report.

    Raises:
      UserError: When a place holds no results, or a file cannot be written.
    """
    sweeps = join.find_sweeps(places)
    changes = join.changes(*sweeps) if len(sweeps) == 2 else None
    report = summarize(join.join(places, sweeps), changes)
    _write(folder, report)
    return report


def _write(folder: Path, report: Report) -> None:
    files = {
        REPORT_JSON: tables.results_json(report),
        REPORT_ROWS: tables.results_csv(report),
        REPORT_TABLE: tables.results_markdown(report),
        REPORT_PAGE: page.render(report),
    }
    for name, text in files.items():
        write_bytes_atomic(folder / name, text.encode("utf-8", "replace"))
