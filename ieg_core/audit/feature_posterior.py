# SPDX-License-Identifier: Apache-2.0
"""Which labels are wrong, given features of the images and one or several labels each.

No network is trained. With h the reduced features and y the given labels:

    1. p by logistic regression on h, out of fold; λ by the likelihood of held-out given labels
    2. T[c, k] from counts of (argmax p(x_i), y_i)
    3. p again, by the forward-corrected fit with that T, out of fold; λ by the likelihood of held-
       out given labels under step 4's T
    4. T by EM, started from that of step 2, p held fixed; and steps 3 and 4 once more, at the same
       λ, with the T a quarter of the way from step 2's to step 4's
    5. q_i(c) ∝ p_c(x_i) Π_a T_a[c, y_ia]           over the annotators a

q_i is the distribution over example i's classes; the score of a label is 1 − q_i(label). EM alone,
from a p that was trained on noise, gets the diagonal of T wrong, hence the order; counts blur T
where p errs, and EM sharpens it too much where mistakes are made on images that are hard to tell,
hence a quarter. Clean labels, if an evaluation knows them, take no part; those that somebody
confirmed do, as trusted ones.
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
"""λ, from the strongest prior on; the search ends where held-out likelihood falls."""

FEW: Final = 1000
"""Of fewer images, λ of step 3 is at least that of step 1: held-out likelihood given an estimated T
is too noisy there and picks fits that memorize labels. Measured on 20 sets of 300 images of
CIFAR-10, 15 % of the labels wrong: of as many top suspects 82 % are wrong labels, instead of 76 %;
but scores are cautious then, and sum up to less than there are wrong labels."""

_EM_STEPS: Final = 30
# Of 0, ¼, ½ and 1, chosen with the true labels of CIFAR-10N worst and asymmetric 0.4 in view: the
# first of them gains from 0, the second from 1. docs/RESULTS.md, "Features".
_SHARPENING: Final = 0.25
_PRIOR: Final = 1.0
_POOLED_PRIOR: Final = 5.0


@dataclass(frozen=True)
class Evidence:
    """What is thought of each example, given its features and labels.

    Attributes:
      q: Distribution over the classes, float32 [n, C].
      predicted: p of the last step 3, out of fold: what features alone say, float32 [n, C].
      plain: p of step 1, out of fold, noise and all, float32 [n, C].
      transitions: T_a[true, observed] of each annotator, float64 [a, C, C].
      reliability: Expected share of right labels of each annotator, float64 [a]; NaN without any.
      agreement: Share of given labels that step 1 predicts, out of fold.
      chance: The same where every prediction is the most frequent given label.
      precisions: λ of steps 1 and 3.
      reduction: How features were reduced.
      layers: The last step 3's fits, for the prediction of further examples.
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
        """The likeliest class of each example, int32 [n]."""
        return self.q.argmax(1).astype(np.int32)

    def score(self, labels: NDArray[np.integer]) -> NDArray[np.float64]:
        """Returns how suspect labels are: 1 − q_i(y_i).

        Args:
          labels: int [n] or [n, a]; `MISSING` for none.

        Returns:
          float64 of the same shape, in [0, 1]; NaN where there is no label.
        """
        columns = labels.reshape(len(labels), -1)
        # Summed over the rivals: 1 − q loses all digits where q is next to 1.
        believed = self.q.astype(np.float64)
        scores = np.full(columns.shape, np.nan)
        for number, column in enumerate(columns.T):
            rows = np.flatnonzero(column != MISSING)
            rivals = believed[rows]
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
      features: Float arrays [n, D₁], [n, D₂], …, of one or several networks.
      labels: Given labels, int [n], or [n, a] of a annotators; `MISSING` where there is none.
      num_classes: C, at least 2.
      trusted: Classes that are known, int [n], `MISSING` elsewhere: q is 1 there, the fits learn
        from it, and T counts it.
      trusted_weight: How many examples a trusted one counts for in T. People review suspects first,
        who are no fair sample of all labels; a drawn probe is, and may weigh more.
      precisions: λ to try, descending.
      seed: Of the folds.

    Returns:
      The evidence.

    Raises:
      UserError: When features or labels are not what they must be.
    """
    columns = np.asarray(labels, np.int64).reshape(len(labels), -1)
    known = np.full(len(columns), MISSING) if trusted is None else np.asarray(trusted, np.int64)
    _check(features, columns, known, num_classes, trusted_weight)
    reduced, reduction = reduce_features(features)
    first = _first_label(np.column_stack([known, columns]))
    folds = np.where(first == MISSING, NO_FOLD, fold_numbers(first, FOLDS, seed))
    own = np.eye(num_classes)
    start = np.zeros((FOLDS, reduced.shape[1] + 1, num_classes))
    identity = np.repeat(own[None], columns.shape[1], 0)

    def likelihood(predicted: NDArray[np.float32]) -> float:
        return _held_out_likelihood(predicted, columns, identity)

    def estimate(
        predicted: NDArray[np.float32], transitions: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        for _ in range(_EM_STEPS):
            believed = posterior(predicted, columns, transitions, known)
            transitions = _transitions(believed, columns, known, trusted_weight)
        return transitions

    def corrected_likelihood(predicted: NDArray[np.float32]) -> float:
        return _held_out_likelihood(predicted, columns, estimate(predicted, counted))

    search = (reduced, folds, reduction.variances)
    votes = _votes(columns, known, num_classes)
    plain, layers, first_precision = _fit_out_of_fold(*search, votes, precisions, start, likelihood)
    counted = _transitions(own[plain.argmax(1)], columns, known, trusted_weight)
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
    labelled = first != MISSING
    agreement = float((plain.argmax(1) == first)[labelled].mean())
    chance = float(np.bincount(first[labelled], minlength=num_classes).max() / labelled.sum())
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
      labels: int [n, a]; `MISSING` for none.
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
    """Returns each example's most frequent label, int32 [n]; the first of equals; or `MISSING`.

    Args:
      labels: int [n, a]; `MISSING` for none.
      num_classes: C.
    """
    columns = np.asarray(labels, np.int64)
    counts = _label_counts(columns, num_classes)
    rows = np.arange(len(columns))
    found = np.full(len(columns), MISSING, np.int32)
    best = np.zeros(len(columns))
    for column in columns.T:
        given = column != MISSING
        votes = np.where(given, counts[rows, np.maximum(column, 0)], 0)
        found = np.where(votes > best, column, found).astype(np.int32)
        best = np.maximum(votes, best)
    return found


def _fit_out_of_fold(
    features: NDArray[np.float32],
    folds: NDArray[np.int64],
    variances: NDArray[np.float64],
    evidence: NDArray[np.float32],
    precisions: Sequence[float],
    start: Layers,
    likelihood: Callable[[NDArray[np.float32]], float],
) -> tuple[NDArray[np.float32], Layers, float]:
    """Fits with one λ after the other until held-out given labels get less likely.

    Each fit begins at `start`: the loss of a forward-corrected one has several minima, and one that
    follows from a stronger prior may have lost a class among two that are mistaken for each other.
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
        raise UserError("received no precision to try: expected at least one")
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
    sure = trusted != MISSING
    evidence[sure] = np.eye(transitions.shape[1], dtype=np.float32)[trusted[sure]]
    return evidence


def _votes(
    labels: NDArray[np.int64], trusted: NDArray[np.int64], num_classes: int
) -> NDArray[np.float32]:
    """Returns the evidence of step 1: the labels as they are, all classes that somebody named."""
    counts = _label_counts(labels, num_classes)
    sure = trusted != MISSING
    counts[sure] = np.eye(num_classes)[trusted[sure]]
    counts[counts.sum(1) == 0] = 1  # nothing is known of it
    return (counts / counts.sum(1, keepdims=True)).astype(np.float32)


def _label_counts(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    counts = np.zeros((len(labels), num_classes))
    for column in labels.T:
        rows = np.flatnonzero(column != MISSING)
        counts[rows, column[rows]] += 1
    return counts


def _transitions(
    believed: NDArray[np.float64],
    labels: NDArray[np.int64],
    trusted: NDArray[np.int64],
    trusted_weight: float,
) -> NDArray[np.float64]:
    """Counts believed classes against each annotator's labels.

        T_a[c, k] = (s P[c, k] + Σ_{i: y_ia = k} w_i q_i(c)) / (s + Σ_i w_i q_i(c))

    P is uniform with s of one example, and with several annotators what all of them together do,
    with s of five, so that one of few labels is taken for an average one.
    """
    classes = believed.shape[1]
    sure = trusted != MISSING
    weighted = believed.copy()
    weighted[sure] = trusted_weight * np.eye(classes)[trusted[sure]]
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
    """Returns the first label of each row that is not missing, else `MISSING`."""
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
            f"{[len(each) for each in features]} examples: expected one row an example"
        )
    for name, values in (("labels", labels), ("trusted classes", trusted)):
        if values.size and (values.min() < MISSING or values.max() >= num_classes):
            raise UserError(
                f"the {name} run from {values.min()} to {values.max()}: expected from 0 to "
                f"{num_classes - 1}, or {MISSING} for none"
            )
    empty = np.flatnonzero((labels == MISSING).all(0))
    if len(empty):
        raise UserError(f"label column {empty[0]} is empty: leave it out")
    present = np.unique(_first_label(np.column_stack([trusted, labels])))
    if (present != MISSING).sum() < 2:
        raise UserError("all labels are of one class: expected at least two classes")
