# SPDX-License-Identifier: Apache-2.0
"""Writes an audit of images: DIR/audit.csv, audit.parquet, summary.json and review.html."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ieg_core.audit import review
from ieg_core.audit.label_audit import LabelAudit, LabelAuditRecord, columns
from ieg_core.data.tables import to_csv, to_parquet
from ieg_core.host.files import write_bytes_atomic

TABLE: Final = "audit.csv"
PARQUET: Final = "audit.parquet"
REVIEW: Final = "review.html"
OUTPUTS: Final = (TABLE, PARQUET, REVIEW, LabelAuditRecord.NAME)
"""Every file of an audit, in its folder."""


def write_outputs(
    folder: Path, audit: LabelAudit, *, top: int, earlier: Sequence[tuple[str, str, str]] = ()
) -> list[Path]:
    """Writes an audit, most suspicious images first, images without a judged label last.

    All contents are built before the first file is written.

    Args:
      folder: The output folder; created if missing.
      audit: The audit.
      top: Maximum number of images in review.html.
      earlier: Earlier decisions from `decisions.rows`; review.html includes them when it saves.

    Returns:
      The files that people open: the review and the table.

    Raises:
      UserError: When an image can no longer be read, or the folder cannot be written.
    """
    rows = audit.all_places
    table = columns(audit, rows)
    files = {TABLE: to_csv(table)}
    files[PARQUET] = to_parquet({**table, "q": list(audit.evidence.q[rows])})
    page = review.render(audit, top=top, earlier=earlier, remarks=audit.headline())
    files[REVIEW] = page.encode()
    for name, content in files.items():
        write_bytes_atomic(folder / name, content)
    audit.summary.write(folder)
    return [folder / REVIEW, folder / TABLE]
