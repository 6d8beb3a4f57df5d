# SPDX-License-Identifier: Apache-2.0
"""Writes a sweep's report: results.json, results.csv, results.md and report.html."""

from collections.abc import Sequence
from pathlib import Path

from ieg_core.host.files import write_bytes_atomic
from ieg_core.report import join, tables
from ieg_core.report.html import page
from ieg_core.report.trials import Sweep, load_sweep
from ieg_core.store.layout import sweep_folder
from ieg_core.store.records import ReportRecord


def write_report(results_root: Path, sweep: str) -> Path:
    """Reports a sweep from what lies in its results root, finished or not.

    The files depend on the results alone: reporting twice gives the same bytes.

    Args:
      results_root: The results root.
      sweep: The sweep's name.

    Returns:
      The report's folder.

    Raises:
      UserError: There is no such sweep, its plan is damaged, or the folder cannot be written.
    """
    found = load_sweep(results_root, sweep)
    while True:
        folder = _write(sweep_folder(results_root, sweep) / "report", found, None)
        # Another part of the sweep may have finished meanwhile, and written its report before this.
        now = load_sweep(results_root, sweep)
        if now.rows == found.rows:
            return folder
        found = now


def write_joined(places: Sequence[Path], folder: Path) -> Path:
    """Reports several sweeps as one, and between two says what changed.

    Args:
      places: Folders that `join.find_sweep` takes.
      folder: Where to write.

    Returns:
      The folder.

    Raises:
      UserError: A place holds no results, or the folder cannot be written.
    """
    changed = join.changes(*map(join.find_sweep, places)) if len(places) == 2 else None
    return _write(folder, join.join(places), changed)


def _write(folder: Path, found: Sweep, changed: join.Changes | None) -> Path:
    files = {
        Path(ReportRecord.NAME).name: tables.results_json(found.rows),
        "results.csv": tables.results_csv(found.rows),
        "results.md": tables.results_markdown(found, changed),
        "report.html": page.render(found, changed),
    }
    for name, text in files.items():
        write_bytes_atomic(folder / name, text.encode("utf-8", "replace"))
    return folder
