# SPDX-License-Identifier: Apache-2.0
"""Writes an audit by features: DIR/audit.csv, audit.parquet, summary.json and review.html."""

import importlib
import importlib.util
from pathlib import Path
from typing import Final

import numpy as np

from ieg_core.audit.decisions import Decisions
from ieg_core.audit.label_audit import LabelAudit, columns
from ieg_core.data.tables import to_csv, to_parquet
from ieg_core.host.files import write_bytes_atomic

TABLE: Final = "audit.csv"
REVIEW: Final = "review.html"
_REVIEW_MODULE: Final = "ieg_core.audit.review"


def write_outputs(
    folder: Path, audit: LabelAudit, *, top: int, earlier: Decisions | None = None
) -> list[Path]:
    """Writes an audit, the most suspicious images first, those without a judged label last.

    All files are made before the first one is written.

    Args:
      folder: Where to; created if missing.
      audit: The audit.
      top: The most images in review.html.
      earlier: Decisions that the audit knows, which review.html saves again.

    Returns:
      The files that people open: the review and the table.

    Raises:
      UserError: When an image can no longer be read, or the folder cannot be written.
    """
    others = np.setdiff1d(np.arange(len(audit.images)), audit.order)
    rows = np.concatenate([audit.order, others])
    table = columns(audit, rows)
    files = {TABLE: to_csv(table)}
    files["audit.parquet"] = to_parquet({**table, "q": list(audit.evidence.q[rows])})
    if importlib.util.find_spec(_REVIEW_MODULE):
        review = importlib.import_module(_REVIEW_MODULE)
        files[REVIEW] = review.render(audit, top=top, earlier=earlier).encode()
    for name, content in files.items():
        write_bytes_atomic(folder / name, content)
    audit.summary.write(folder)
    return [folder / name for name in (REVIEW, TABLE) if name in files]
