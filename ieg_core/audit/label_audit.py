# SPDX-License-Identifier: Apache-2.0
"""The audit of labels by features of the images, without training a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.feature_posterior import MISSING, Evidence, judge_labels
from ieg_core.audit.images import LabeledImages
from ieg_core.store.records import Record

if TYPE_CHECKING:
    import pandas as pd

TOPS = (10, 30, 100, 300, 1000, 3000, 10_000)


@dataclass(frozen=True, kw_only=True)
class LabelAuditRecord(Record):
    """What an audit by features found.

    Attributes:
      examples: n, images.
      labelled: Images with a label.
      trusted: Images whose class somebody confirmed.
      class_names: C names, by class number.
      class_counts: Images of each given label, [C].
      annotators: Names of the label columns.
      reliability: Expected share of right labels of each annotator; None without any.
      agreement: Share of given labels that features predict, out of fold.
      chance: The same where every prediction is the most frequent given label.
      expected_wrong: Σ score over the judged labels: how many are expected to be wrong.
      disagreeing: Judged labels whose suggestion is another class.
      expected_in_top: For the N most suspicious labels, how many are expected to be wrong, by N.
      transition_estimated: T_a[true, observed] of each annotator.
      features: What the features are.
      notes: What was left out or looked odd.
    """

    NAME: ClassVar[str] = "summary.json"

    examples: int
    labelled: int
    trusted: int
    class_names: Sequence[str]
    class_counts: Sequence[int]
    annotators: Sequence[str]
    reliability: Sequence[float | None]
    agreement: float
    chance: float
    expected_wrong: float
    disagreeing: int
    expected_in_top: Mapping[str, float]
    transition_estimated: Sequence[Sequence[Sequence[float]]]
    features: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class LabelAudit:
    """An audit of labels.

    Attributes:
      images: What was audited.
      evidence: What is thought of each image.
      given: The label that is judged, int32 [n]; `MISSING` if there is none.
      suggested: The likeliest class, int32 [n].
      score: 1 − q(given), float64 [n]; NaN without a label.
      order: Images that have a label that nobody confirmed, the most suspicious first, int64 [m].
      summary: The figures of summary.json.
    """

    images: LabeledImages
    evidence: Evidence
    given: NDArray[np.int32]
    suggested: NDArray[np.int32]
    score: NDArray[np.float64]
    order: NDArray[np.int64]
    summary: LabelAuditRecord

    def to_frame(self) -> "pd.DataFrame":
        """Returns the table of the audit, a row an image, indexed as the caller does."""
        raise NotImplementedError


def audit_labels(
    images: LabeledImages,
    features: Sequence[np.ndarray],
    *,
    feature_names: Sequence[str] = (),
    seed: int = 0,
    **options: Any,
) -> LabelAudit:
    """Judges labels by features.

    Args:
      images: The images with their labels.
      features: Float arrays [n, D₁], [n, D₂], …, rows in the order of the images.
      feature_names: What the features are, for the record.
      seed: Of the folds.
      **options: Of `judge_labels`.

    Returns:
      The audit.

    Raises:
      UserError: When labels or features do not allow a judgement.
    """
    trusted = images.trusted
    evidence = judge_labels(
        features, images.labels, len(images.class_names), trusted=trusted, seed=seed, **options
    )
    given = images.given
    score = evidence.score(given)
    judged = np.flatnonzero((given != MISSING) & (trusted == MISSING))
    order = judged[np.argsort(-score[judged], kind="stable")].astype(np.int64)
    sums = np.cumsum(score[order])
    labelled = given != MISSING
    summary = LabelAuditRecord(
        examples=len(images),
        labelled=int(labelled.sum()),
        trusted=int((trusted != MISSING).sum()),
        class_names=list(images.class_names),
        class_counts=np.bincount(given[labelled], minlength=len(images.class_names)).tolist(),
        annotators=list(images.annotators),
        reliability=[None if np.isnan(each) else float(each) for each in evidence.reliability],
        agreement=evidence.agreement,
        chance=evidence.chance,
        expected_wrong=float(sums[-1]) if len(sums) else 0.0,
        disagreeing=int((evidence.suggested[order] != given[order]).sum()),
        expected_in_top={str(top): float(sums[top - 1]) for top in TOPS if top <= len(sums)},
        transition_estimated=evidence.transitions.tolist(),
        features=list(feature_names),
        notes=list(images.notes),
    )
    return LabelAudit(images, evidence, given, evidence.suggested, score, order, summary)
