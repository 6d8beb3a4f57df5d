# SPDX-License-Identifier: Apache-2.0
"""A trial's audit for the KFP UI: made during training or, if it is missing, here."""

import html
import traceback
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.store.layout import AUDIT_PAGE
from ieg_core.store.records import AuditRecord
from ieg_core.tasks.kfp_ui import finite_numbers


def page_and_measures(
    folder: Path, data_dir: Path, *, may_audit: bool = True
) -> tuple[str, dict[str, float]]:
    """Returns a trial's audit for the KFP UI; an audit that fails does not fail the task.

    Args:
      folder: The trial's folder.
      data_dir: Folder of the base data sets.
      may_audit: Whether to make the audit if it is missing.

    Returns:
      audit.html, and the summary's finite numbers as audit_<name>. Without an audit, a page that
      gives the reason, and no numbers.
    """
    page = folder / AUDIT_PAGE
    try:
        summary, _ = AuditRecord.look(folder)
        if summary is None or not page.exists():
            if not may_audit:
                return _no_audit("its evaluation ran out of attempts"), {}
            from ieg_core.audit.write import audit_trial  # slow to import, rarely needed

            summary = audit_trial(folder, data_dir)
        text = page.read_text(encoding="utf-8")
    except UserError as error:
        return _no_audit(str(error)), {}
    except Exception as error:
        traceback.print_exc()
        return _no_audit(f"{type(error).__name__}: {error}"), {}
    numbers = finite_numbers(summary.to_value())
    return text, {f"audit_{name}": value for name, value in numbers.items()}


def _no_audit(reason: str) -> str:
    sentence = html.escape(f"This trial has no audit: {reason}.")
    return f'<!DOCTYPE html><meta charset="utf-8"><title>No audit</title><p>{sentence}</p>\n'
