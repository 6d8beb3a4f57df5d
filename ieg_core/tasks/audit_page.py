# SPDX-License-Identifier: Apache-2.0
"""A trial's audit for the KFP UI: made during training or, if it is missing, here."""

import html
from pathlib import Path

from ieg_core.store.layout import AUDIT_PAGE, trial_folder
from ieg_core.store.records import AuditRecord
from ieg_core.sweep import worker
from ieg_core.tasks.kfp_ui import finite_numbers


def page_and_measures(
    root: Path, trial: str, data_dir: Path, *, may_audit: bool = True
) -> tuple[str, dict[str, float]]:
    """Returns a trial's audit for the KFP UI; an audit that fails does not fail the task.

    Args:
      root: The results root, namespace included.
      trial: The trial's name.
      data_dir: Folder of the base data sets.
      may_audit: Whether to make the audit if it is missing.

    Returns:
      audit.html, and the summary's finite numbers as audit_<name>. Without an audit, a page that
      gives the reason, and no numbers.
    """
    folder = trial_folder(root, trial)
    page = folder / AUDIT_PAGE
    summary, _ = AuditRecord.look(folder)
    if summary is None or not page.exists():
        reason = "its evaluation ran out of attempts"
        if may_audit:
            reason = worker.run_audit(trial, root, data_dir)
            summary, problem = AuditRecord.look(folder)
            reason = reason or problem
        if summary is None or reason:
            return _no_audit(reason), {}
    numbers = finite_numbers(summary.to_value())
    return page.read_text(encoding="utf-8"), {f"audit_{k}": v for k, v in numbers.items()}


def _no_audit(reason: str) -> str:
    sentence = html.escape(f"This trial has no audit: {reason}.")
    return f'<!DOCTYPE html><meta charset="utf-8"><title>No audit</title><p>{sentence}</p>\n'
