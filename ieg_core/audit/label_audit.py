# SPDX-License-Identifier: Apache-2.0
"""The audit of labels by image features, without training a network.

How well features can judge labels is measured by Cohen's kappa between the given labels y and the
labels ŷ that features predict out of fold, from other images' labels:

    κ = (o − e) / (1 − e),   o = share of ŷ_i = y_i,   e = Σ_c share of ŷ = c · share of y = c

If the two are unrelated, o has the mean e and the standard deviation √(e (1 − e) / n).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.feature_posterior import MISSING, Evidence, judge_labels
from ieg_core.audit.images import LabeledImages
from ieg_core.audit.measures import auroc, average_precision
from ieg_core.audit.oddities import find_oddities
from ieg_core.data.tables import to_frame
from ieg_core.errors import UserError, require, some
from ieg_core.store.record import Record

TOPS: Final = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
TOPS_SHOWN: Final = (10, 100, 1000, 10_000)
MOST_CLASSES: Final = 6
LEAST_KAPPA: Final = 0.05
WEAK_KAPPA: Final = 0.2
FAIR_KAPPA: Final = 0.5
LEAST_DEVIATIONS: Final = 3.0
UNRECOGNIZED: Final = 0.01
FEW: Final = 500
"""With 300 labels, the number of wrong ones was off by up to half (docs/RESULTS.md)."""


@dataclass(frozen=True, kw_only=True)
class LabelAuditRecord(Record):
    """The results of an audit of images.

    Attributes:
      examples: n, the number of images.
      labelled: Images with a label.
      trusted: Images with a confirmed class.
      class_names: C names, by class number.
      class_counts: Images of each given label, [C].
      annotators: Names of the label columns.
      reliability: Expected share of correct labels of each annotator; None for one without labels.
      agreement: Share of given labels that features predict, out of fold.
      chance: Share of the most frequent given label, the agreement of a constant prediction.
      kappa: Agreement beyond chance: 0 for features that cannot judge these labels, 1 at most.
      expected_wrong: Expected number of wrong labels: Σ score over the judged labels.
      disagreeing: Judged labels whose suggestion is another class.
      expected_in_top: Expected number of wrong labels among the N most suspicious, by N.
      transition_estimated: T_a[true, observed] of each annotator.
      features: Names of the features.
      notes: What was left out or looked odd.
      unrecognized: Classes that features do not tell from the others (`LabelAudit.unrecognized`).
      reviews: Labels changed in each hundred of a person's reviews, in review order; None without
        decisions.
      wrong: Judged labels that are wrong; None if the true labels are unknown, as for the
        following fields.
      average_precision: Average precision of the score.
      auroc: AUROC of the score.
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
    unrecognized: Sequence[str] = ()
    reviews: Sequence[int] | None = None
    wrong: int | None = None
    average_precision: float | None = None
    auroc: float | None = None


@dataclass(frozen=True)
class LabelAudit:
    """An audit of labels.

    Attributes:
      images: The audited images.
      evidence: The posterior of each image.
      given: The judged label, int32 [n]; `MISSING` if there is none.
      suggested: The most likely class, int32 [n].
      score: 1 − q(given), float64 [n]; NaN without a label.
      order: Images with an unconfirmed label, most suspicious first, int64 [m].
      summary: The content of summary.json.
    """

    images: LabeledImages
    evidence: Evidence
    given: NDArray[np.int32]
    suggested: NDArray[np.int32]
    score: NDArray[np.float64]
    order: NDArray[np.int64]
    summary: LabelAuditRecord

    def to_frame(self) -> Any:
        """Returns the audit as a table, one row per image, with the caller's order and index.

        Returns:
          A pandas DataFrame; without pandas a dictionary of columns, one of them "index".
        """
        return to_frame(columns(self, np.arange(len(self.images))), self.images.indices)

    @property
    def unrecognized(self) -> tuple[int, ...]:
        """Classes that features do not tell from the others, by an exact test at 1 %.

        Of the n examples with a label, N_c have class c, and step 1 predicts c for M_c, out of
        fold, h_c of which have it. Without a relation, h_c is hypergeometric; c is recognized if
        P(h ≥ h_c) ≤ 1 %. Right labels of other classes may look wrong, too: of a class too rare to
        be ever predicted, each does.
        """
        from scipy.stats import hypergeom  # takes half a second to import

        trusted, given = self.images.trusted, self.given
        known = np.where(trusted != MISSING, trusted, given)
        labeled = known != MISSING
        predicted, known = self.evidence.plain.argmax(1)[labeled], known[labeled]
        classes = len(self.images.class_names)
        counts, drawn = (np.bincount(each, minlength=classes) for each in (known, predicted))
        hits = np.bincount(known[known == predicted], minlength=classes)
        chances = hypergeom.sf(hits - 1, len(known), counts, drawn)
        return tuple(np.flatnonzero((counts > 0) & (chances > UNRECOGNIZED)).tolist())

    @property
    def all_places(self) -> NDArray[np.int64]:
        """The images of `order`, then all others in the order of the data, int64 [n]."""
        others = np.setdiff1d(np.arange(len(self.images)), self.order)
        return np.concatenate([self.order, others])

    def headline(self) -> list[str]:
        """Returns what was found, and how reliable that is, one line each."""
        summary = self.summary
        counts = sorted(
            zip(summary.class_names, summary.class_counts, strict=True), key=lambda each: -each[1]
        )
        shown = some((f"{name} {count}" for name, count in counts), MOST_CLASSES)
        lines = [f"{summary.examples} images of {len(counts)} classes ({shown})"]
        if summary.trusted:
            lines[0] += f", {summary.trusted} of them confirmed"
        if len(summary.annotators) > 1:
            reliable = [
                f"{name} {'-' if share is None else f'{share:.0%}'}"
                for name, share in zip(summary.annotators, summary.reliability, strict=True)
            ]
            lines.append(f"Expected share of correct labels: {', '.join(reliable)}")
        lines += [f"Note: {note}" for note in summary.notes]
        grade = (
            "they judge these images poorly: the figures below are a guess, look at each suggestion"
            if summary.kappa < WEAK_KAPPA
            else "they judge these images fairly"
            if summary.kappa < FAIR_KAPPA
            else "they judge these images well"
        )
        lines.append(
            f"The features predict {summary.agreement:.1%} of the given labels, chance "
            f"{summary.chance:.1%} (kappa {summary.kappa:.2f}): {grade}"
        )
        if summary.unrecognized:
            lines.append(
                f"They may not recognize {some(summary.unrecognized)}: then right labels of these "
                "look wrong, too; look at each"
            )
        judged = len(self.order)
        expected = summary.expected_wrong
        share = f" ({expected / judged:.1%})" if judged else ""
        few = ": a rough number, since the images are few"
        lines.append(
            f"About {expected:.0f} of {judged} labels are expected to be wrong{share}"
            f"{few if 0 < judged < FEW else ''}"
        )
        sums = np.cumsum(self.score[self.order])
        tops = sorted({*(top for top in TOPS_SHOWN if top <= judged), max(1, round(expected))})
        if judged:
            counts_in_tops = ", ".join(
                f"{sums[top - 1]:.0f} of {top}" for top in tops if top <= judged
            )
            lines.append(f"Among the most suspicious, expected to be wrong: {counts_in_tops}")
        if summary.average_precision is not None and summary.auroc is not None:
            lines.append(
                f"{summary.wrong} labels are wrong: average precision "
                f"{summary.average_precision:.3f}, AUROC {summary.auroc:.3f}"
            )
        return lines


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
      feature_names: Names of the features, for the record.
      clean: True labels, int [n], for measuring the audit; the audit does not use them.
      seed: Seed of the folds.
      **options: Passed to `judge_labels`.

    Returns:
      The audit.

    Raises:
      UserError: When labels or features do not allow an audit, or do not agree better than by
        chance.
    """
    trusted, given = images.trusted, images.given
    is_valid = isinstance(seed, int | np.integer) and seed >= 0
    require(is_valid, "seed", seed, "a whole number from 0")
    check_labels(images)
    for each in features:
        if len(each) != len(images):
            raise UserError(
                f"received features of {len(each)} images: expected {len(images)} rows, one per "
                "image in order"
            )
    evidence = judge_labels(
        features, images.labels, len(images.class_names), trusted=trusted, seed=seed, **options
    )
    known = np.where(trusted != MISSING, trusted, given)
    oddities = find_oddities(images)
    kappa = _agreement_beyond_chance(evidence.plain.argmax(1), known, oddities)
    score = evidence.score(given)
    judged = np.flatnonzero((given != MISSING) & (trusted == MISSING))
    order = judged[np.argsort(-score[judged], kind="stable")].astype(np.int64)
    sums = np.cumsum(score[order])
    labeled = given != MISSING
    wrong = None if clean is None else given[order] != np.asarray(clean)[order]
    summary = LabelAuditRecord(
        examples=len(images),
        labelled=int(labeled.sum()),
        trusted=int((trusted != MISSING).sum()),
        class_names=list(images.class_names),
        class_counts=np.bincount(given[labeled], minlength=len(images.class_names)).tolist(),
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
        notes=[*images.notes, *oddities],
        wrong=None if wrong is None else int(wrong.sum()),
        average_precision=None if wrong is None else average_precision(wrong, score[order]),
        auroc=None if wrong is None else auroc(wrong, score[order]),
    )
    audit = LabelAudit(images, evidence, given, evidence.suggested, score, order, summary)
    names = [images.class_names[number] for number in audit.unrecognized]
    return replace(audit, summary=replace(summary, unrecognized=names))


def columns(audit: LabelAudit, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
    """Returns the columns of the audit's table.

    Args:
      audit: The audit.
      rows: The images to list, in order, int [m].

    Returns:
      path, given, suggested, score; q of the suggestion, and the second most likely class with its
      q; p, from features alone, of the given label and of the suggestion; the confirmed class, if
      any image has one; and each annotator's label, if there are several. Missing values are None.
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
            float(value) if is_given else None
            for value, is_given in zip(values, has_label, strict=True)
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


def _agreement_beyond_chance(
    predicted: NDArray[np.integer], given: NDArray[np.integer], oddities: Sequence[str]
) -> float:
    """Returns Cohen's κ; raises UserError if features cannot judge the labels."""
    is_given = given != MISSING
    predicted, given = predicted[is_given], given[is_given]
    classes = int(max(predicted.max(), given.max())) + 1
    shares = np.bincount(predicted, minlength=classes) / len(given)
    expected = float(shares @ np.bincount(given, minlength=classes) / len(given))
    observed = float((predicted == given).mean())
    deviation = math.sqrt(expected * (1 - expected) / len(given))
    kappa = (observed - expected) / (1 - expected) if expected < 1 else 0.0
    if kappa < LEAST_KAPPA or observed < expected + LEAST_DEVIATIONS * deviation:
        raise UserError(
            f"these features cannot judge these labels: they predict {observed:.1%} of the "
            f"{len(given)} given labels, chance {expected:.1%}; expected clearly more: add images, "
            "use more reliable labels, choose other features, or, if these come from "
            "a file, check that its rows are in the order of the images"
            + "".join(f"; {oddity}" for oddity in oddities)
        )
    return kappa


def check_labels(images: LabeledImages) -> None:
    """Refuses labels that cannot be learned from, before features are computed.

    Raises:
      UserError: When no image is left, a column is empty, repeats another or has none of the
        others' classes, or there are fewer than two classes or two images of a class.
    """
    if not len(images):
        raise UserError("no image is left to audit: expected some; drop fewer")
    for name, column in zip(images.annotators, images.labels.T, strict=True):
        if (column == MISSING).all():
            raise UserError(
                f"the labels of {name} are all missing: expected some; leave the column out"
            )
    # Two annotators who never differ would vouch for every mistake that they share.
    for number, column in enumerate(images.labels.T):
        same = np.flatnonzero((images.labels[:, :number] == column[:, None]).all(0))
        if len(same):
            raise UserError(
                f"the labels of {images.annotators[number]} repeat those of "
                f"{images.annotators[same[0]]}: expected people who judged on their own; leave one "
                "of the two out"
            )
    _refuse_foreign(images)
    votes = np.column_stack([images.trusted, images.labels])
    counts = np.zeros(len(images.class_names), np.int64)
    for number in range(len(counts)):
        counts[number] = (votes == number).any(1).sum()
    present = np.flatnonzero(counts)
    if len(present) < 2:
        name = images.class_names[present[0]] if len(present) else "none"
        raise UserError(
            f"all labels are of one class ({name}): expected at least two classes, as folders or "
            "as labels in the table"
        )
    if 2 * len(present) > len(images):
        raise UserError(
            f"received {len(present)} classes for {len(images)} images: expected at least two "
            "images per class; check that folders or labels are classes"
        )
    single = np.flatnonzero(counts == 1)
    if len(single):
        more = f" and {len(single) - 1} more classes" if len(single) > 1 else ""
        raise UserError(
            f"the class {images.class_names[single[0]]!r}{more} has one image: expected at least "
            "two per class; add images or remove the class"
        )


def _refuse_foreign(images: LabeledImages) -> None:
    """Refuses a column of something else, such as people's names or sizes of images."""
    for number in reversed(range(len(images.annotators))):
        column, others = images.labels[:, number], np.delete(images.labels, number, 1)
        both = (column != MISSING) & (others != MISSING).any(1)
        if both.any() and not np.isin(column[column != MISSING], others).any():
            names = [name for name in images.annotators if name != images.annotators[number]]
            raise UserError(
                f"the column {images.annotators[number]} has no class of {some(names)}: expected "
                "the same classes from all annotators; name the columns of labels (--annotators, "
                "from Python labels=)"
            )
