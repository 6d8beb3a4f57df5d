# SPDX-License-Identifier: Apache-2.0
"""The evaluation of one trial as a task of a pipeline."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ieg_core.report.trials import load_trial
from ieg_core.store import lost_pods
from ieg_core.sweep import worker
from ieg_core.tasks import kfp_ui
from ieg_core.tasks.audit_page import page_and_measures

ACCURACY = "accuracy_ema_last"


@dataclass(frozen=True)
class Artifacts:
    """The content of a trial's KFP artifacts.

    Attributes:
      metrics: The finite numbers of its result, and those of its audit as audit_<name>.
      class_names: C distinct names; empty without a confusion matrix.
      confusion: Counts [C, C], rows = true class.
      page: The audit's gallery, HTML.
    """

    metrics: dict[str, float]
    class_names: list[str]
    confusion: Sequence[Sequence[float]]
    page: str

    def write(self, metrics: Path, confusion: Path, audit: Path) -> None:
        """Writes the artifacts' files; the UI reads metrics from the metadata instead."""
        metrics.write_text(json.dumps(self.metrics), encoding="utf-8")
        confusion.write_text(
            json.dumps({"classes": self.class_names, "counts": self.confusion}), encoding="utf-8"
        )
        audit.write_text(self.page, encoding="utf-8")


def join(shown: Mapping[str, Artifacts]) -> Artifacts:
    """Returns the artifacts of the trials that share a pod.

    Of several trials these are one accuracy each; the sweep's report has everything else.

    Args:
      shown: The artifacts of each trial, by its name.
    """
    if len(shown) == 1:
        (alone,) = shown.values()
        return alone
    numbers = {
        f"{trial} {ACCURACY}": each.metrics[ACCURACY]
        for trial, each in shown.items()
        if ACCURACY in each.metrics
    }
    page = "<p>Several trials share this pod: their audits are in the report of the sweep.</p>"
    return Artifacts(numbers, [], [], page)


def evaluate(root: Path, trial: str, data_dir: Path, lost: int) -> Artifacts:
    """Evaluates a trial, unless it has a result or this run has lost too many pods to it.

    Args:
      root: The results root, namespace included.
      trial: The trial.
      data_dir: Folder of the base data sets.
      lost: This run's earlier attempts (`lost_pods.count_attempt`).

    Returns:
      The artifacts. For a failed trial: no numbers, and a page with the reason.
    """
    has_failed = lost_pods.fail_evaluation_after_lost_pods(root, trial, lost)
    if not has_failed:
        worker.run_step("evaluate", trial, root, data_dir)
    page, audited = page_and_measures(root, trial, data_dir, may_audit=not has_failed)
    loaded = load_trial(root, trial)
    return Artifacts(kfp_ui.metrics(loaded.row) | audited, *kfp_ui.confusion(loaded), page)
