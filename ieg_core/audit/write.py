# SPDX-License-Identifier: Apache-2.0
"""Writes the audit of a finished trial: RUN_DIR/audit.

audit.parquet, audit.csv   every training example, the most suspect first
audit.html                 the most suspect ones to look at
summary.json               how many, and how good the score is where the true labels are known
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ieg_core.audit import gallery
from ieg_core.audit.findings import THRESHOLD, cleaned_labels, read_audit, summarize, table
from ieg_core.data.labels.label_file import to_parquet, write_labels
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
    """Audits a finished trial and writes its folder audit/.

    Args:
      folder: The trial's folder.
      data_dir: Where the base data set lies.
      top: Examples in the gallery, at most.
      threshold: From which score on a label is called wrong, in [0, 1].
      labels_file: Where to write the cleaned labels, .csv or .parquet; None for not at all.

    Returns:
      The audit in numbers.

    Raises:
      UserError: The trial cannot be audited, the data are others, or a file cannot be written.
    """
    require(top >= 0, "top", top, "at least 0")
    require(0 <= threshold <= 1, "threshold", threshold, "in [0, 1]")
    found = read_audit(folder, data_dir, threshold)
    if labels_file is not None:
        ids, labels = cleaned_labels(found)
        write_labels(labels_file, ids, labels, found.source)
    summary = summarize(found)
    columns = table(found)
    page = folder / AUDIT_PAGE
    write_bytes_atomic(page.with_suffix(".parquet"), to_parquet(columns))
    write_bytes_atomic(page.with_suffix(".csv"), _to_csv(columns))
    write_bytes_atomic(page, gallery.render(found, summary, top).encode())
    summary.write(folder)
    return summary


def _to_csv(columns: Mapping[str, Any]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    lists = [np.asarray(values).tolist() for values in columns.values()]
    for row in zip(*lists, strict=True):
        writer.writerow(
            ["" if v is None else f"{v:.9f}" if isinstance(v, float) else v for v in row]
        )
    return text.getvalue().encode()
