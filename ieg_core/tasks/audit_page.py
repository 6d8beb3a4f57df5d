# SPDX-License-Identifier: Apache-2.0
"""A trial's audit as the KFP UI shows it: usually made when the trial was trained, else here."""

import html
import math
import traceback
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.store.layout import AUDIT_PAGE
from ieg_core.store.records import AuditRecord


def page_and_measures(
    folder: Path, data_dir: Path, *, may_audit: bool = True
) -> tuple[str, dict[str, float]]:
    """Returns a trial's audit for the KFP UI, whose pipeline goes on without one.

    Args:
      folder: The trial's folder. Its audit/ is taken where there is one, else made.
      data_dir: Where the base data set lies.
      may_audit: Whether an audit that is not there may be made.

    Returns:
      audit.html, and the summary's finite numbers as audit_<name>; where there is none, a page that
      says why, and no numbers.
    """
    page = folder / AUDIT_PAGE
    try:
        summary, _ = AuditRecord.look(folder)
        if summary is None or not page.exists():
            if not may_audit:
                return _no_audit("its evaluation was given up"), {}
            from ieg_core.audit.write import audit_trial  # a second to import, and rarely needed

            summary = audit_trial(folder, data_dir)
        text = page.read_text(encoding="utf-8")
    except UserError as error:
        return _no_audit(str(error)), {}
    except Exception as error:
        traceback.print_exc()
        return _no_audit(f"{type(error).__name__}: {error}"), {}
    numbers = {
        f"audit_{name}": value
        for name, value in summary.to_value().items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    return text, numbers


def _no_audit(reason: str) -> str:
    sentence = html.escape(f"This trial has no audit: {reason}.")
    return f'<!DOCTYPE html><meta charset="utf-8"><title>No audit</title><p>{sentence}</p>\n'
