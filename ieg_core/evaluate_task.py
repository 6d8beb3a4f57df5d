# SPDX-License-Identifier: Apache-2.0
"""The evaluation of one cell as a task of a pipeline: computed or given up, and shown."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ieg_core import attempts, worker
from ieg_core.audit.shown import page_and_measures
from ieg_core.report import shown
from ieg_core.results import cell_folder


@dataclass(frozen=True)
class Shown:
    """What the KFP UI shows of a cell.

    Attributes:
      metrics: Finite numbers of its result, and of its audit as audit_<name>.
      class_names: C different names; none without a confusion matrix.
      confusion: Counts [C][C], rows = true class.
      page: The audit's gallery, HTML.
    """

    metrics: dict[str, float]
    class_names: list[str]
    confusion: Sequence[Sequence[float]]
    page: str

    def write(self, metrics: Path, confusion: Path, audit: Path) -> None:
        """Writes the artifacts' files; the UI itself reads numbers from the metadata."""
        metrics.write_text(json.dumps(self.metrics))
        confusion.write_text(json.dumps({"classes": self.class_names, "counts": self.confusion}))
        audit.write_text(self.page, encoding="utf-8")


def evaluate(root: Path, cell: str, data_dir: Path, lost: int) -> Shown:
    """Evaluates a cell, unless it has its result or its run has lost too many pods on it.

    Args:
      root: The results root, namespace included.
      cell: The cell.
      data_dir: Where the base data sets lie.
      lost: Attempts of this run before this one (`attempts.count_evaluation`).

    Returns:
      What there is to show; of a cell that failed no numbers, and a page that says so.
    """
    given_up = attempts.give_up_evaluation(root, cell, lost)
    if not given_up:
        worker.run_step("evaluate", cell, root, data_dir)
    page, audited = page_and_measures(cell_folder(root, cell), data_dir, may_audit=not given_up)
    names, counts = shown.confusion(root, cell)
    return Shown(shown.metrics(root, cell) | audited, names, counts, page)
