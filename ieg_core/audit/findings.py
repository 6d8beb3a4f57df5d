# SPDX-License-Identifier: Apache-2.0
"""The audit of a finished trial, from the files in its folder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ieg_core.audit.measures import auroc, average_precision, precision_recall
from ieg_core.audit.scores import Scores, score_examples
from ieg_core.data.base import Source
from ieg_core.data.corruption import realized_matrix
from ieg_core.data.label_set import LabelSet, load_label_set
from ieg_core.data.open import open_source
from ieg_core.data.tables import to_frame
from ieg_core.errors import UserError
from ieg_core.experiment.methods import METHODS
from ieg_core.store import arrays, layout
from ieg_core.store.records import AuditRecord, TrainingRecord, TrialRecord

THRESHOLD = 0.5
_SHOWN = 5


@dataclass(frozen=True)
class Audit:
    """The result of an audit, the most suspicious example first.

    Attributes:
      record: What the trial was planned to be.
      label_set: Its label set.
      source: The base images of the label set.
      ids: Indices of the judged training examples in the base data set, int [n]; images of a probe
        are not judged, even where a method trains on them like on any other.
      given: Their given labels, int32 [n].
      scores: Their scores, in the same order.
      clean: Their true labels, int32 [n]; None if these are unknown, or equal to the given ones
        by definition.
      threshold: The least score of a label that is flagged.
      indices: The caller's index of each example of the base data set; None for paths or positions.
    """

    record: TrialRecord
    label_set: LabelSet
    source: Source
    ids: np.ndarray
    given: np.ndarray
    scores: Scores
    clean: np.ndarray | None
    threshold: float
    indices: Sequence[Any] | None = None

    def suspects(self, count: int | None = None) -> list[Any]:
        """Returns the indices of the most suspicious labels, most suspicious first.

        Args:
          count: How many; by default those that are flagged.
        """
        return self._indices(self.ids[self.flagged] if count is None else self.ids[:count])

    def to_frame(self) -> Any:
        """Returns the audit as a table, most suspicious first (`ieg_core.data.tables.to_frame`)."""
        columns = {name: cells for name, cells in table(self).items() if name != "index"}
        return to_frame(columns, self._indices(self.ids))

    def __repr__(self) -> str:
        names, suggested = self.label_set.class_names, self.scores.suggested
        lines = [f"Audit of {len(self.ids):,} labels: {int(self.flagged.sum()):,} look wrong"]
        places = np.flatnonzero(self.flagged)[:_SHOWN]
        for place, index in zip(places, self._indices(self.ids[places]), strict=True):
            change = f"{names[self.given[place]]}, probably {names[suggested[place]]}"
            lines.append(f"  {index}: {change} (score {self.scores.score[place]:.3f})")
        return "\n".join(lines)

    def _indices(self, ids: np.ndarray) -> list[Any]:
        known = self.indices or self.source.paths
        return [known[place] if known else place for place in ids.tolist()]

    @property
    def trusted_ids(self) -> np.ndarray:
        """Indices of the training examples whose labels are trusted, int [m], ascending."""
        return _trusted_ids(self.label_set, self.source)

    @property
    def flagged(self) -> np.ndarray:
        """Which labels are flagged as wrong, bool [n]: a high score and another suggested class."""
        return (self.scores.score >= self.threshold) & (self.scores.suggested != self.given)


def is_available(folder: Path) -> bool:
    """Returns whether a trial can be audited: trained by a method that sees the noisy labels."""
    return (folder / layout.EXAMPLES).exists()


def read_examples(
    folder: Path, data_dir: Path
) -> tuple[TrialRecord, LabelSet, Source, dict[str, np.ndarray]]:
    """Reads what a finished trial recorded about its training examples.

    Returns:
      The trial's record, its label set, its images, and the values by name, [N, …].

    Raises:
      UserError: When the trial cannot be audited, see `ieg_core.audit.write.audit_trial`.
    """
    record = TrialRecord.read(folder)
    if record is None or not layout.is_trial(folder):
        raise UserError(
            f"{folder} is not a run: expected the folder of a trial with a {TrialRecord.NAME}, "
            f"such as {layout.TRIAL_EXAMPLE}, or of a sweep, such as {layout.LATEST_EXAMPLE}"
        )
    method = record.method
    if method in METHODS and not METHODS[method].trains_on_noisy:
        raise UserError(
            f"an audit of {method} is not available: it never sees the noisy labels; audit a run "
            "of another method"
        )
    try:
        examples, _ = arrays.read(folder / layout.EXAMPLES, "train the trial again")
    except FileNotFoundError:
        state = "is from an older version" if TrainingRecord.exists(folder) else "is not done"
        raise UserError(
            f"{folder} has no {layout.EXAMPLES}: its training {state}; run ieg train or make sweep "
            "again"
        ) from None
    source = open_source(record.base, data_dir, record.settings.images)
    label_set = load_label_set(
        layout.label_sets_folder(layout.root_of(folder)) / record.label_set, source
    )
    num_examples = len(label_set.noisy_labels)
    if any(len(values) != num_examples for values in examples.values()):
        raise UserError(
            f"{folder / layout.EXAMPLES} is damaged: expected {num_examples} examples; train the "
            "trial again"
        )
    return record, label_set, source, examples


def read_audit(folder: Path, data_dir: Path, threshold: float) -> Audit:
    """Scores the training examples of a finished trial.

    Raises:
      UserError: When the trial cannot be audited, see `ieg_core.audit.write.audit_trial`.
    """
    record, label_set, source, examples = read_examples(folder, data_dir)
    ids = np.setdiff1d(label_set.train_ids, _trusted_ids(label_set, source))
    given = label_set.noisy_labels[ids]
    scores = score_examples({name: values[ids] for name, values in examples.items()}, given)
    # NaN, for examples never seen, sorts last; equal scores keep the order of the data.
    order = np.argsort(-scores.score, kind="stable")
    clean = label_set.clean_labels[ids] if _clean_known(label_set) else None
    return Audit(
        record=record,
        label_set=label_set,
        source=source,
        ids=ids[order],
        given=given[order],
        scores=replace(
            scores,
            suggested=scores.suggested[order],
            score=scores.score[order],
            visits=scores.visits[order],
        ),
        clean=None if clean is None else clean[order],
        threshold=threshold,
    )


def _trusted_ids(label_set: LabelSet, source: Source) -> np.ndarray:
    """Returns the examples of the probe, whether it was drawn or the data set reserves it."""
    reserved = label_set.probe_ids if source.probe_ids is None else source.probe_ids
    return np.union1d(label_set.probe_ids, reserved)


def _clean_known(label_set: LabelSet) -> bool:
    """Returns whether true labels are known apart from the given ones, as they are under noise."""
    spec = label_set.spec
    altered = bool(spec.noise and spec.noise_rate) or spec.given is not None
    return altered and spec.clean_labels_known


def summarize(audit: Audit) -> AuditRecord:
    """Returns the audit's record: counts, matrices and, with true labels, measures."""
    scores, given, clean = audit.scores, audit.given, audit.clean
    seen = ~np.isnan(scores.score)
    summary = AuditRecord(
        trial=audit.record.trial,
        dataset=audit.record.dataset,
        method=audit.record.method,
        seed=audit.record.seed,
        class_names=list(audit.label_set.class_names),
        formula=scores.formula,
        belief=scores.belief,
        threshold=audit.threshold,
        examples=len(given),
        not_seen=int((~seen).sum()),
        flagged=int(audit.flagged.sum()),
        transition_estimated=scores.transition.tolist(),
        clean_labels_known=clean is not None,
    )
    if clean is None:
        return summary
    wrong = given != clean
    precision, recall = precision_recall(wrong[seen], audit.flagged[seen])
    true_matrix = realized_matrix(clean, given, audit.label_set.num_classes)
    right_suggestions = scores.suggested[wrong & seen] == clean[wrong & seen]
    return replace(
        summary,
        wrong=int(wrong.sum()),
        average_precision=average_precision(wrong[seen], scores.score[seen]),
        auroc=auroc(wrong[seen], scores.score[seen]),
        precision=precision,
        recall=recall,
        suggested_right=float(right_suggestions.mean()) if len(right_suggestions) else None,
        transition_true=true_matrix.tolist(),
        transition_error=float(np.abs(scores.transition - true_matrix).mean()),
    )


def table(audit: Audit) -> dict[str, np.ndarray | list[Any]]:
    """Returns the columns of audit.csv and audit.parquet; "clean" only if these are known."""
    names = audit.label_set.class_names

    def named(labels: np.ndarray) -> list[str]:
        return [names[label] for label in labels]

    columns: dict[str, np.ndarray | list[Any]] = {
        "index": audit.ids,
        "given": audit.given,
        "given_name": named(audit.given),
        "suggested": audit.scores.suggested,
        "suggested_name": named(audit.scores.suggested),
        "score": [None if math.isnan(score) else float(score) for score in audit.scores.score],
        "visits": audit.scores.visits,
    }
    if audit.source.paths:
        columns["path"] = [audit.source.paths[index] for index in audit.ids]
    if audit.clean is not None:
        columns["clean"] = audit.clean
        columns["clean_name"] = named(audit.clean)
    return columns


def cleaned_labels(audit: Audit) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels to continue with: indices, int [n], ascending, and a class for each.

    A flagged example gets its suggested label, the others keep theirs; an example of the probe set
    has the clean label that the run was given.
    """
    labels = np.where(audit.flagged, audit.scores.suggested, audit.given)
    trusted = audit.trusted_ids
    ids = np.concatenate([audit.ids, trusted])
    labels = np.concatenate([labels, audit.label_set.clean_labels[trusted]])
    order = np.argsort(ids)
    return ids[order], labels[order]
