# SPDX-License-Identifier: Apache-2.0
"""The posterior of each example's class, given image features and one or several labels.

No network is trained. With h the reduced features and y the given labels:

    1. p by logistic regression on h, out of fold; λ by the likelihood of held-out given labels
    2. T[c, k] from counts of (argmax p(x_i), y_i)
    3. p by the forward-corrected fit with that T, out of fold; λ by the likelihood of held-out
       given labels under step 4's T
    4. T by EM, started from step 2's, with p fixed; then steps 3 and 4 once more at the same λ,
       with T a quarter of the way from step 2's to step 4's
    5. q_i(c) ∝ p_c(x_i) Π_a T_a[c, y_ia]           over the annotators a

q_i is the distribution over example i's classes; the score of a label is 1 − q_i(label). EM alone,
starting from a p trained on noisy labels, gets the diagonal of T wrong, hence the order of steps.
Counts blur T where p is wrong, while EM sharpens it too much if annotators mislabel the images that
are hard to classify, hence a quarter. Clean labels, if an evaluation has them, are never used;
confirmed labels are, as trusted ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.draws.generator import fold_numbers
from ieg_core.errors import UserError, require
from ieg_core.features.linear import NO_FOLD, TINY, Layers, fit, predict
from ieg_core.features.reduction import Reduction, reduce_features

MISSING: Final = -1
FOLDS: Final = 5
PRECISIONS: Final = (3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""λ, from the strongest prior down; the search ends when held-out likelihood falls."""

FEW: Final = 1000
"""With fewer images, λ of step 3 is at least that of step 1: held-out likelihood under an estimate
of T is then too noisy and selects fits that memorize labels. Measured on 20 sets of 300 CIFAR-10
images with 15 % wrong labels: of the 15 % most suspicious labels 82 % are wrong, instead of 76 %.
The scores are conservative, however: their sum is below the number of wrong labels."""

_EM_STEPS: Final = 30
# Chosen among 0, ¼, ½ and 1 by the true labels of CIFAR-10N worst, where 0 is best, and of
# asymmetric 0.4, where 1 is best. docs/RESULTS.md, "Features".
_SHARPENING: Final = 0.25
_PRIOR: Final = 1.0
_POOLED_PRIOR: Final = 5.0


@dataclass(frozen=True)
class Evidence:
    """The posterior of each example, and the fits it came from.

    Attributes:
      q: Distribution over the classes, float32 [n, C].
      predicted: p of the last step 3, out of fold: from features alone, float32 [n, C].
      plain: p of step 1, out of fold, without noise correction, float32 [n, C].
      transitions: T_a[true, observed] of each annotator, float64 [a, C, C].
      reliability: Expected share of correct labels of each annotator, float64 [a]; NaN for an
        annotator without labels.
      agreement: Share of given labels that step 1 predicts, out of fold.
      chance: Share of the most frequent given label, the agreement of a constant prediction.
      precisions: λ of steps 1 and 3.
      reduction: The reduction of the features.
      layers: The fits of the last step 3, for predicting new examples.
    """

    q: NDArray[np.float32]
    predicted: NDArray[np.float32]
    plain: NDArray[np.float32]
    transitions: NDArray[np.float64]
    reliability: NDArray[np.float64]
    agreement: float
    chance: float
    precisions: tuple[float, float]
    reduction: Reduction
    layers: Layers

    @property
    def suggested(self) -> NDArray[np.int32]:
        """The most likely class of each example, int32 [n]."""
        return self.q.argmax(1).astype(np.int32)

    def score(self, labels: NDArray[np.integer]) -> NDArray[np.float64]:
        """Returns the scores of labels, 1 − q_i(y_i); higher is more suspicious.

        Args:
          labels: int [n] or [n, a]; `MISSING` for a missing label.

        Returns:
          float64 of the same shape, in [0, 1]; NaN for a missing label.
        """
        columns = labels.reshape(len(labels), -1)
        # Sum over the other classes: 1 − q loses all digits if q is close to 1.
        probabilities = self.q.astype(np.float64)
        scores = np.full(columns.shape, np.nan)
        for number, column in enumerate(columns.T):
            rows = np.flatnonzero(column != MISSING)
            rivals = probabilities[rows]
            rivals[np.arange(len(rows)), column[rows]] = 0
            scores[rows, number] = np.minimum(rivals.sum(1), 1)
        return scores.reshape(labels.shape)


def judge_labels(
    features: Sequence[np.ndarray],
    labels: NDArray[np.integer],
    num_classes: int,
    *,
    trusted: NDArray[np.integer] | None = None,
    trusted_weight: float = 1.0,
    precisions: Sequence[float] = PRECISIONS,
    seed: int = 0,
) -> Evidence:
    """Estimates each example's class from features and labels, by steps 1 to 5.

    Args:
      features: Float arrays [n, D₁], [n, D₂], …, from one or several networks.
      labels: Given labels, int [n], or [n, a] for a annotators; `MISSING` for a missing label.
      num_classes: C, at least 2.
      trusted: Known classes, int [n], `MISSING` elsewhere; q is 1 at these, and both the fits and T
        learn from them.
      trusted_weight: Weight of a trusted example in T, in examples. People review suspicious labels
        first, which are not a representative sample; a random probe is, and can weigh more.
      precisions: λ to try, in descending order.
      seed: Seed of the folds.

    Returns:
      The evidence.

    Raises:
      UserError: When the numbers of rows differ, a label is out of range, a label column is empty,
        all labels are of one class, or features are not finite.
    """
    columns = np.asarray(labels, np.int64).reshape(len(labels), -1)
    known = np.full(len(columns), MISSING) if trusted is None else np.asarray(trusted, np.int64)
    _check(features, columns, known, num_classes, trusted_weight)
    reduced, reduction = reduce_features(features)
    first = _first_label(np.column_stack([known, columns]))
    folds = np.where(first == MISSING, NO_FOLD, fold_numbers(first, FOLDS, seed))
    one_hot = np.eye(num_classes)
    start = np.zeros((FOLDS, reduced.shape[1] + 1, num_classes))
    identity = np.repeat(one_hot[None], columns.shape[1], 0)

    def likelihood(predicted: NDArray[np.float32]) -> float:
        return _held_out_likelihood(predicted, columns, identity)

    def estimate(
        predicted: NDArray[np.float32], transitions: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        for _ in range(_EM_STEPS):
            probabilities = posterior(predicted, columns, transitions, known)
            transitions = _transitions(probabilities, columns, known, trusted_weight)
        return transitions

    def corrected_likelihood(predicted: NDArray[np.float32]) -> float:
        return _held_out_likelihood(predicted, columns, estimate(predicted, counted))

    search = (reduced, folds, reduction.variances)
    votes = _votes(columns, known, num_classes)
    plain, layers, first_precision = _fit_out_of_fold(*search, votes, precisions, start, likelihood)
    counted = _transitions(one_hot[plain.argmax(1)], columns, known, trusted_weight)
    evidence = _evidence(columns, counted, known)
    if len(columns) < FEW:
        precisions = [each for each in precisions if each >= first_precision]
    predicted, layers, second_precision = _fit_out_of_fold(
        *search, evidence, precisions, layers, corrected_likelihood
    )
    sharpened = counted + _SHARPENING * (estimate(predicted, counted) - counted)
    evidence = _evidence(columns, sharpened, known)
    predicted, layers, _ = _fit_out_of_fold(
        *search, evidence, (second_precision,), layers, corrected_likelihood
    )
    transitions = estimate(predicted, sharpened)
    q = posterior(predicted, columns, transitions, known)
    labeled = first != MISSING
    agreement = float((plain.argmax(1) == first)[labeled].mean())
    chance = float(np.bincount(first[labeled], minlength=num_classes).max() / labeled.sum())
    return Evidence(
        q=q.astype(np.float32),
        predicted=predicted,
        plain=plain,
        transitions=transitions,
        reliability=_reliability(q, columns),
        agreement=agreement,
        chance=chance,
        precisions=(first_precision, second_precision),
        reduction=reduction,
        layers=layers,
    )


def posterior(
    predicted: np.ndarray,
    labels: NDArray[np.int64],
    transitions: NDArray[np.float64],
    trusted: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Returns q_i(c) ∝ p_c(x_i) Π_a T_a[c, y_ia], and 1 at trusted classes.

    Args:
      predicted: p, float [n, C].
      labels: int [n, a]; `MISSING` for a missing label.
      transitions: T, float64 [a, C, C].
      trusted: int [n]; `MISSING` for unknown.

    Returns:
      float64 [n, C], rows summing to 1.
    """
    joint = np.log(predicted.astype(np.float64) + TINY)
    joint += np.log(_evidence(labels, transitions, trusted).astype(np.float64) + TINY**4)
    joint = np.exp(joint - joint.max(1, keepdims=True))
    return joint / joint.sum(1, keepdims=True)


def majority(labels: NDArray[np.integer], num_classes: int) -> NDArray[np.int32]:
    """Returns each example's most frequent label, int32 [n]; `MISSING` if it has none.

    Ties go to the label that comes first in the row.

    Args:
      labels: int [n, a]; `MISSING` for a missing label.
      num_classes: C.
    """
    columns = np.asarray(labels, np.int64)
    counts = _label_counts(columns, num_classes)
    rows = np.arange(len(columns))
    result = np.full(len(columns), MISSING, np.int32)
    best = np.zeros(len(columns))
    for column in columns.T:
        given = column != MISSING
        votes = np.where(given, counts[rows, np.maximum(column, 0)], 0)
        result = np.where(votes > best, column, result).astype(np.int32)
        best = np.maximum(votes, best)
    return result


def _fit_out_of_fold(
    features: NDArray[np.float32],
    folds: NDArray[np.int64],
    variances: NDArray[np.float64],
    evidence: NDArray[np.float32],
    precisions: Sequence[float],
    start: Layers,
    likelihood: Callable[[NDArray[np.float32]], float],
) -> tuple[NDArray[np.float32], Layers, float]:
    """Fits with each λ in turn until the held-out likelihood of the given labels falls.

    Each fit begins at `start` instead of the previous fit: the forward-corrected loss has several
    minima, and under a stronger prior one of two confused classes may have vanished.
    """
    best: tuple[NDArray[np.float32], Layers, float] | None = None
    most = -np.inf
    for precision in precisions:
        layers = fit(features, evidence, folds, precision / variances, start)
        predicted = predict(layers, features, folds)
        value = likelihood(predicted)
        if best is not None and value <= most:
            break
        best, most = (predicted, layers, precision), value
    if best is None:
        raise UserError("received no precisions: expected at least one λ")
    return best


def _held_out_likelihood(
    predicted: NDArray[np.float32], labels: NDArray[np.int64], transitions: NDArray[np.float64]
) -> float:
    """Returns Σ_i Σ_a log Σ_c p_c(x_i) T_a[c, y_ia]."""
    total = 0.0
    for column, transition in zip(labels.T, transitions, strict=True):
        rows = np.flatnonzero(column != MISSING)
        observed = np.einsum("ic,ic->i", predicted[rows], transition.T[column[rows]])
        total += float(np.log(observed + TINY).sum())
    return total


def _evidence(
    labels: NDArray[np.int64], transitions: NDArray[np.float64], trusted: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Returns E_i(c) = Π_a T_a[c, y_ia], scaled to a largest entry of 1; one-hot where trusted."""
    logs = np.zeros((len(labels), transitions.shape[1]))
    for column, transition in zip(labels.T, transitions, strict=True):
        rows = column != MISSING
        logs[rows] += np.log(transition.T + TINY)[column[rows]]
    evidence = np.exp(logs - logs.max(1, keepdims=True)).astype(np.float32)
    is_trusted = trusted != MISSING
    evidence[is_trusted] = np.eye(transitions.shape[1], dtype=np.float32)[trusted[is_trusted]]
    return evidence


def _votes(
    labels: NDArray[np.int64], trusted: NDArray[np.int64], num_classes: int
) -> NDArray[np.float32]:
    """Returns the evidence of step 1: each class's share of the example's labels."""
    counts = _label_counts(labels, num_classes)
    is_trusted = trusted != MISSING
    counts[is_trusted] = np.eye(num_classes)[trusted[is_trusted]]
    counts[counts.sum(1) == 0] = 1  # no label: uniform
    return (counts / counts.sum(1, keepdims=True)).astype(np.float32)


def _label_counts(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    counts = np.zeros((len(labels), num_classes))
    for column in labels.T:
        rows = np.flatnonzero(column != MISSING)
        counts[rows, column[rows]] += 1
    return counts


def _transitions(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    trusted: NDArray[np.int64],
    trusted_weight: float,
) -> NDArray[np.float64]:
    """Estimates T from expected counts of each class with each annotator's labels.

        T_a[c, k] = (s P[c, k] + Σ_{i: y_ia = k} w_i q_i(c)) / (s + Σ_i w_i q_i(c))

    With one annotator, P is uniform and s is one example. With several, P is pooled over all of
    them and s is five examples, so that an annotator with few labels is treated as average.
    """
    classes = probabilities.shape[1]
    is_trusted = trusted != MISSING
    weighted = probabilities.copy()
    weighted[is_trusted] = trusted_weight * np.eye(classes)[trusted[is_trusted]]
    counts = np.zeros((labels.shape[1], classes, classes))
    for matrix, column in zip(counts, labels.T, strict=True):
        for label in range(classes):
            matrix[:, label] = weighted[column == label].sum(0)
    pooled = _normalized(counts.sum(0) + _PRIOR / classes)
    if len(counts) == 1:
        return pooled[None]
    return _normalized(counts + _POOLED_PRIOR * pooled)


def _normalized(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts / counts.sum(-1, keepdims=True)


def _reliability(q: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = np.full(labels.shape[1], np.nan)
    for number, column in enumerate(labels.T):
        rows = np.flatnonzero(column != MISSING)
        if len(rows):
            shares[number] = q[rows, column[rows]].mean()
    return shares


def _first_label(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the first label in each row that is not missing, otherwise `MISSING`."""
    place = (columns != MISSING).argmax(1)
    return columns[np.arange(len(columns)), place]


def _check(
    features: Sequence[np.ndarray],
    labels: NDArray[np.int64],
    trusted: NDArray[np.int64],
    num_classes: int,
    trusted_weight: float,
) -> None:
    require(num_classes >= 2, "num_classes", num_classes, "at least 2")
    require(trusted_weight > 0, "trusted_weight", trusted_weight, "above 0")
    rows = {len(labels), len(trusted), *(len(each) for each in features)}
    if len(rows) > 1:
        raise UserError(
            f"received {len(labels)} labels, {len(trusted)} trusted classes and features of "
            f"{[len(each) for each in features]} examples: expected one row per example"
        )
    for name, values in (("labels", labels), ("trusted classes", trusted)):
        if values.size and (values.min() < MISSING or values.max() >= num_classes):
            raise UserError(
                f"the {name} range from {values.min()} to {values.max()}: expected 0 to "
                f"{num_classes - 1}, or {MISSING} if missing"
            )
    empty = np.flatnonzero((labels == MISSING).all(0))
    if len(empty):
        raise UserError(
            f"label column {empty[0]} is empty: expected at least one label; leave the column out"
        )
    present = np.unique(_first_label(np.column_stack([trusted, labels])))
    if (present != MISSING).sum() < 2:
        raise UserError("all labels are of one class: expected at least two classes")
