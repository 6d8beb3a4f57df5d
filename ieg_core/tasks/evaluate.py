# SPDX-License-Identifier: Apache-2.0
"""The evaluation of one trial as a task of a pipeline: computed or given up, and shown."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ieg_core.report.trials import load_trial
from ieg_core.store import lost_pods
from ieg_core.store.layout import trial_folder
from ieg_core.sweep import worker
from ieg_core.tasks import kfp_ui
from ieg_core.tasks.audit_page import page_and_measures


@dataclass(frozen=True)
class Shown:
    """What the KFP UI shows of a trial.

    Attributes:
      metrics: Finite numbers of its result, and of its audit as audit_<name>.
      class_names: C different names; none without a confusion matrix.
      confusion: Counts [C, C], rows = true class.
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


def evaluate(root: Path, trial: str, data_dir: Path, lost: int) -> Shown:
    """Evaluates a trial, unless it has its result or its run has lost too many pods on it.

    Args:
      root: The results root, namespace included.
      trial: The trial.
      data_dir: Where the base data sets lie.
      lost: Attempts of this run before this one (`attempts.count_evaluation`).

    Returns:
      What there is to show; of a trial that failed no numbers, and a page that says so.
    """
    given_up = lost_pods.fail_evaluation_after_lost_pods(root, trial, lost)
    if not given_up:
        worker.run_step("evaluate", trial, root, data_dir)
    page, audited = page_and_measures(trial_folder(root, trial), data_dir, may_audit=not given_up)
    found = load_trial(root, trial)
    return Shown(kfp_ui.metrics(found.row) | audited, *kfp_ui.confusion(found), page)
