# SPDX-License-Identifier: Apache-2.0
"""The audit of labels by features of the images, without training a network.

How far features can judge labels at all is measured by Cohen's kappa between the given labels y and
ŷ, what features predict out of fold from other images' labels:

    κ = (o − e) / (1 − e),   o = share of ŷ_i = y_i,   e = Σ_c share of ŷ = c · share of y = c

Without any relation, o has the mean e and the standard deviation √(e (1 − e) / n).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.feature_posterior import MISSING, Evidence, judge_labels
from ieg_core.audit.images import LabeledImages
from ieg_core.audit.measures import auroc, average_precision
from ieg_core.errors import UserError
from ieg_core.store.records import Record

if TYPE_CHECKING:
    import pandas as pd

TOPS: Final = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
LEAST_KAPPA: Final = 0.05
LEAST_DEVIATIONS: Final = 3.0


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
      kappa: Agreement beyond chance: 0 for features that cannot judge these labels, 1 at most.
      expected_wrong: Σ score over the judged labels: how many are expected to be wrong.
      disagreeing: Judged labels whose suggestion is another class.
      expected_in_top: For the N most suspicious labels, how many are expected to be wrong, by N.
      transition_estimated: T_a[true, observed] of each annotator.
      features: What the features are.
      notes: What was left out or looked odd.
      wrong: Judged labels that are wrong, where an evaluation knows the true ones; None elsewhere,
        as for what follows.
      average_precision: Of the score.
      auroc: Of the score.
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
    kappa: float
    expected_wrong: float
    disagreeing: int
    expected_in_top: Mapping[str, float]
    transition_estimated: Sequence[Sequence[Sequence[float]]]
    features: Sequence[str] = ()
    notes: Sequence[str] = ()
    wrong: int | None = None
    average_precision: float | None = None
    auroc: float | None = None


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
        """Returns the table of the audit, a row an image, in the caller's order and by its index.

        Raises:
          UserError: When pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError("pandas is not installed: pip install pandas") from error
        everything = np.arange(len(self.images))
        return pd.DataFrame(columns(self, everything), index=self.images.indices)


def audit_labels(
    images: LabeledImages,
    features: Sequence[np.ndarray],
    *,
    feature_names: Sequence[str] = (),
    clean: NDArray[np.integer] | None = None,
    seed: int = 0,
    **options: Any,
) -> LabelAudit:
    """Judges labels by features.

    Args:
      images: The images with their labels.
      features: Float arrays [n, D₁], [n, D₂], …, rows in the order of the images.
      feature_names: What the features are, for the record.
      clean: True labels, int [n], to measure the audit by.
      seed: Of the folds.
      **options: Of `judge_labels`.

    Returns:
      The audit.

    Raises:
      UserError: When labels or features do not allow a judgement, or agree no more than chance has
        them.
    """
    trusted, given = images.trusted, images.given
    _check(images, features)
    evidence = judge_labels(
        features, images.labels, len(images.class_names), trusted=trusted, seed=seed, **options
    )
    known = np.where(trusted != MISSING, trusted, given)
    kappa = _agreement_beyond_chance(evidence.plain.argmax(1), known)
    score = evidence.score(given)
    judged = np.flatnonzero((given != MISSING) & (trusted == MISSING))
    order = judged[np.argsort(-score[judged], kind="stable")].astype(np.int64)
    sums = np.cumsum(score[order])
    labelled = given != MISSING
    wrong = None if clean is None else given[order] != np.asarray(clean)[order]
    summary = LabelAuditRecord(
        examples=len(images),
        labelled=int(labelled.sum()),
        trusted=int((trusted != MISSING).sum()),
        class_names=list(images.class_names),
        class_counts=np.bincount(given[labelled], minlength=len(images.class_names)).tolist(),
        annotators=list(images.annotators),
        reliability=[None if math.isnan(each) else float(each) for each in evidence.reliability],
        agreement=evidence.agreement,
        chance=evidence.chance,
        kappa=kappa,
        expected_wrong=float(sums[-1]) if len(sums) else 0.0,
        disagreeing=int((evidence.suggested[order] != given[order]).sum()),
        expected_in_top={str(top): float(sums[top - 1]) for top in TOPS if top <= len(sums)},
        transition_estimated=evidence.transitions.tolist(),
        features=list(feature_names),
        notes=list(images.notes),
        wrong=None if wrong is None else int(wrong.sum()),
        average_precision=None if wrong is None else average_precision(wrong, score[order]),
        auroc=None if wrong is None else auroc(wrong, score[order]),
    )
    return LabelAudit(images, evidence, given, evidence.suggested, score, order, summary)


def columns(audit: LabelAudit, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
    """Returns the columns of the audit's table.

    Args:
      audit: The audit.
      rows: The images, in the order in which they are listed, int [m].

    Returns:
      path, given, suggested, score; q of the suggestion, and the second likeliest class with its q;
      p, what features alone say, of the given label and of the suggestion; then the confirmed
      class, if there are any, and each annotator's label, if there are several. None for none.
    """
    images, q, p = audit.images, audit.evidence.q[rows], audit.evidence.predicted[rows]
    given, suggested = audit.given[rows], audit.suggested[rows]
    places = np.arange(len(rows))
    rest = q.copy()
    rest[places, suggested] = -1
    second = rest.argmax(1)
    has_label = given != MISSING

    def named(labels: NDArray[np.integer]) -> list[str | None]:
        names = images.class_names
        return [None if label == MISSING else names[label] for label in labels.tolist()]

    def where_given(values: NDArray[np.floating]) -> list[float | None]:
        return [
            float(value) if there else None for value, there in zip(values, has_label, strict=True)
        ]

    table: dict[str, list[Any]] = {
        "path": [images.names[row] for row in rows.tolist()],
        "given": named(given),
        "suggested": named(suggested),
        "score": where_given(audit.score[rows]),
        "q_suggested": q[places, suggested].tolist(),
        "second": named(second),
        "q_second": q[places, second].tolist(),
        "p_given": where_given(p[places, np.maximum(given, 0)]),
        "p_suggested": p[places, suggested].tolist(),
    }
    if (images.trusted != MISSING).any():
        table["confirmed"] = named(images.trusted[rows])
    if len(images.annotators) > 1:
        for name, labels in zip(images.annotators, images.labels[rows].T, strict=True):
            table[name if name not in table else f"label {name}"] = named(labels)
    return table


def _agreement_beyond_chance(predicted: NDArray[np.integer], given: NDArray[np.integer]) -> float:
    """Returns Cohen's κ; refuses features that cannot judge the labels."""
    there = given != MISSING
    predicted, given = predicted[there], given[there]
    classes = int(max(predicted.max(), given.max())) + 1
    shares = np.bincount(predicted, minlength=classes) / len(given)
    expected = float(shares @ np.bincount(given, minlength=classes) / len(given))
    observed = float((predicted == given).mean())
    deviation = math.sqrt(expected * (1 - expected) / len(given))
    kappa = (observed - expected) / (1 - expected) if expected < 1 else 0.0
    if kappa < LEAST_KAPPA or observed < expected + LEAST_DEVIATIONS * deviation:
        raise UserError(
            f"these features cannot judge these labels: they predict {observed:.1%} of the given "
            f"labels, chance {expected:.1%}; expected clearly more: add images, labels that are "
            "right more often, or other features (--features)"
        )
    return kappa


def _check(images: LabeledImages, features: Sequence[np.ndarray]) -> None:
    """Refuses labels that leave nothing to learn from, naming classes and columns as people do."""
    for name, column in zip(images.annotators, images.labels.T, strict=True):
        if (column == MISSING).all():
            raise UserError(
                f"the labels of {name} are all missing: expected some; leave the column out"
            )
    for each in features:
        if len(each) != len(images):
            raise UserError(
                f"received features of {len(each)} images: expected {len(images)} rows, one for "
                "each image in order"
            )
    votes = np.column_stack([images.trusted, images.labels])
    counts = np.zeros(len(images.class_names), np.int64)
    for number in range(len(counts)):
        counts[number] = (votes == number).any(1).sum()
    present = np.flatnonzero(counts)
    if len(present) < 2:
        name = images.class_names[present[0]] if len(present) else "none"
        raise UserError(
            f"the labels are of one class ({name}): expected at least two classes, each a folder "
            "or a label in the table"
        )
    if 2 * len(present) > len(images):
        raise UserError(
            f"there are {len(present)} classes for {len(images)} images: expected at least two "
            "images of a class; check that folders or labels are classes"
        )
    single = np.flatnonzero(counts == 1)
    if len(single):
        more = f" and {len(single) - 1} more classes" if len(single) > 1 else ""
        raise UserError(
            f"the class {images.class_names[single[0]]!r}{more} has one image: expected at least "
            "two of each class; add images or remove the class"
        )
