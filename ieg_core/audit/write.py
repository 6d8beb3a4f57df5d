# SPDX-License-Identifier: Apache-2.0
"""Writes the audit of a finished trial: RUN_DIR/audit.

audit.parquet, audit.csv   every training example, the most suspicious first
audit.html                 the most suspicious ones as a page
summary.json               counts and, where the true labels are known, the quality of the score
"""

from pathlib import Path

from ieg_core.audit import gallery
from ieg_core.audit.findings import THRESHOLD, cleaned_labels, read_audit, summarize, table
from ieg_core.data.labels.label_file import write_labels
from ieg_core.data.tables import to_csv, to_parquet
from ieg_core.errors import require
from ieg_core.host.files import write_bytes_atomic
from ieg_core.store.layout import AUDIT_PAGE
from ieg_core.store.records import AuditRecord

TOP = 200


def audit_trial(
    folder: Path,
    data_dir: Path,
    *,
    top: int = TOP,
    threshold: float = THRESHOLD,
    labels_file: Path | None = None,
) -> AuditRecord:
    """Audits a finished trial and writes the results to its folder audit/.

    Args:
      folder: The trial's folder.
      data_dir: The folder of the base data set.
      top: The most examples in the gallery.
      threshold: The least score of a label that is flagged, in [0, 1].
      labels_file: A .csv or .parquet file to write the cleaned labels to; None to write none.

    Returns:
      The audit in numbers.

    Raises:
      UserError: When the trial cannot be audited, its base data have changed, or a file cannot be
        written.
    """
    require(top >= 0, "top", top, "at least 0")
    require(0 <= threshold <= 1, "threshold", threshold, "in [0, 1]")
    audit = read_audit(folder, data_dir, threshold)
    if labels_file is not None:
        ids, labels = cleaned_labels(audit)
        write_labels(labels_file, ids, labels, audit.source)
    summary = summarize(audit)
    columns = table(audit)
    page = folder / AUDIT_PAGE
    write_bytes_atomic(page.with_suffix(".parquet"), to_parquet(columns))
    write_bytes_atomic(page.with_suffix(".csv"), to_csv(columns))
    write_bytes_atomic(page, gallery.render(audit, summary, top).encode())
    summary.write(folder)
    return summary
