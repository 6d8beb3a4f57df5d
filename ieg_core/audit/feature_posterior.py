# SPDX-License-Identifier: Apache-2.0
"""The posterior of each example's class, given image features and one or several labels.

No network is trained. With h the reduced features, y the given labels, and β and T the channel that
`ieg_core.audit.channel` estimates from out-of-fold predictions:

    1. p by logistic regression on h, out of fold
    2. T from counts of (argmax p(x_i), y_i); p by the forward-corrected fit with that T, out of
       fold; again with the counts of that p, until ℓ rises no more. Where the first of these fits
       has a lower ℓ than step 1 with the same λ (at 5 %), p is a mixture of both steps
    3. q_i(c) ∝ p_c(x_i)^β Π_a T_a[c, y_ia]         over the annotators a

λ of steps 1 and 2, the number of principal components that h has, and whether step 2 is taken at
all, are chosen by the likelihood of held-out given labels under the channel, ℓ(β, T) per example. β
matters for the choice: a strong prior ranks few images well but leaves p flat, which the likelihood
without β would punish. Few examples are dealt into folds several times, and p is the mean over the
deals. Clean labels, if an evaluation has them, are never used; confirmed labels are, as trusted
ones.

EM alone, starting from a p trained on noisy labels, gets the diagonal of T wrong, hence the counts
of step 2. They assume that on most images the most likely label is the class, which is also what
identifies T if annotators mislabel the images that are hard to classify. With many classes or few
images, p is too often wrong for that, and the counts take its mistakes for the annotators'. A
correction that explains held-out labels worse than none shows it; then neither step is relied on
alone, and their shares in the mixture maximize ℓ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.channel import (
    MISSING,
    Channel,
    Votes,
    count_transitions,
    estimate_channel,
    log_evidence,
    sharpen,
)
from ieg_core.draws.generator import fold_numbers
from ieg_core.errors import UserError, require
from ieg_core.features.linear import NO_FOLD, TINY, Layers, fit, predict
from ieg_core.features.reduction import MOST_COMPONENTS, Reduction, reduce_features

FOLDS: Final = 5
PRECISIONS: Final = (10000.0, 3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""λ, from the strongest prior down; the search ends when held-out likelihood falls."""
_STRONGER: Final = (30000.0, 100000.0, 300000.0, 1000000.0)
"""λ that are tried, in turn, where the first of these is the best so far."""

# Dealing few examples out several times costs no more than fitting this many once.
_DEALT_EXAMPLES: Final = 2000
_MOST_DEALS: Final = 6
_MOST_RECOUNTS: Final = 3
_MIXING_STEPS: Final = 100
_MOST_PRODUCTS: Final = 1 << 29
"""Of examples, components and classes, the work of a step of a fit; bounds added components."""
_EXAMPLES_A_COMPONENT: Final = 16
"""With fewer, added components find hardly more wrong labels for twice the time."""
_QUANTILE: Final = 1.645
"""Of the normal distribution, one-sided 5 %."""


@dataclass(frozen=True)
class Evidence:
    """The posterior of each example, and the fits it came from.

    Attributes:
      q: Distribution over the classes, float32 [n, C].
      predicted: p^β of the fit or mixture that was chosen, out of fold, from features alone,
        float32 [n, C].
      plain: p of step 1, out of fold, without β and noise correction, float32 [n, C].
      transitions: T_a[true, observed] of each annotator, float64 [a, C, C].
      reliability: Expected share of correct labels of each annotator, float64 [a]; NaN for an
        annotator without labels.
      agreement: Share of given labels that step 1 predicts, out of fold.
      chance: Share of the most frequent given label, the agreement of a constant prediction.
      precisions: λ of step 1 and of the last fit that was chosen.
      reduction: The reduction of the features to as many components as step 1 began with, the input
        of heads; the fits may have had more.
      components: How many components the fits had.
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
    components: int

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
    seed: int = 0,
) -> Evidence:
    """Estimates each example's class from features and labels, by steps 1 to 3.

    Args:
      features: Float arrays [n, D₁], [n, D₂], …, from one or several networks.
      labels: Given labels, int [n], or [n, a] for a annotators; `MISSING` for a missing label.
      num_classes: C, at least 2.
      trusted: Known classes, int [n], `MISSING` elsewhere; q is 1 at these, and both the fits and T
        learn from them.
      trusted_weight: Weight of a trusted example in T, in examples. People review suspicious labels
        first, which are not a representative sample; a random probe is, and can weigh more.
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
    votes = Votes(columns, known, trusted_weight, num_classes)
    first = _first_label(np.column_stack([known, columns]))
    base = MOST_COMPONENTS * len(features)
    by_work = _MOST_PRODUCTS // (len(columns) * num_classes)
    most = max(base, min(by_work, len(columns) // _EXAMPLES_A_COMPONENT))
    reduced, reduction = reduce_features(features, most)
    every = _Problem(reduced, reduction.variances, _deal(first, seed), votes)

    problem = every.first(base)
    plain, _ = _search(problem, _shares(votes), PRECISIONS)
    for stronger in _STRONGER if plain.precision == PRECISIONS[0] else ():
        tried, _ = _search(problem, _shares(votes), (stronger,))
        if tried.channel.likelihood <= plain.channel.likelihood:
            break
        plain = tried
    problem, plain = _add_components(every, problem, plain)
    chosen, counted = _correct(problem, plain)
    if chosen is not plain and _explains_less(counted, plain, votes):
        chosen = _mix(plain, chosen, votes)

    channel = chosen.channel
    predicted = sharpen(chosen.predicted, channel.sharpness)
    q = posterior(predicted, columns, channel.transitions, known)
    labeled = first != MISSING
    return Evidence(
        q=q.astype(np.float32),
        predicted=predicted,
        plain=plain.predicted,
        transitions=channel.transitions,
        reliability=_reliability(q, columns),
        agreement=float((plain.predicted.argmax(1) == first)[labeled].mean()),
        chance=float(np.bincount(first[labeled], minlength=num_classes).max() / labeled.sum()),
        precisions=(plain.precision, chosen.precision),
        reduction=reduction.first(base),
        components=problem.features.shape[1],
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
    votes = Votes(labels, trusted, 1.0, predicted.shape[1])
    joint = np.log(predicted.astype(np.float64) + TINY) + log_evidence(votes, transitions).T
    joint = np.exp(joint - joint.max(1, keepdims=True))
    return joint / joint.sum(1, keepdims=True)


@dataclass(frozen=True)
class _Problem:
    """Reduced features, the variances of their components, folds [deals, n], and labels."""

    features: NDArray[np.float32]
    variances: NDArray[np.float64]
    deals: NDArray[np.int64]
    votes: Votes

    def first(self, count: int) -> "_Problem":
        """Returns the problem with the first components alone, `count` at most."""
        return replace(self, features=self.features[:, :count], variances=self.variances[:count])


@dataclass(frozen=True)
class _Fitted:
    """Fits with one λ, their out-of-fold predictions, and the channel to the labels."""

    precision: float
    layers: Layers
    predicted: NDArray[np.float32]
    channel: Channel


def _deal(first: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Deals examples into folds, int64 [deals, n]; `NO_FOLD` for those without a label."""
    count = min(max(_DEALT_EXAMPLES // len(first), 1), _MOST_DEALS)
    deals = [fold_numbers(first, FOLDS, seed + number) for number in range(count)]
    return np.where(first == MISSING, NO_FOLD, np.stack(deals))


def _add_components(every: _Problem, problem: _Problem, plain: _Fitted) -> tuple[_Problem, _Fitted]:
    """Doubles the components while ℓ of step 1 rises, by a paired one-sided test at 5 %."""
    while (before := problem.features.shape[1]) < every.features.shape[1]:
        more = every.first(2 * before)
        added = np.zeros(
            (len(plain.layers), more.features.shape[1] - before, every.votes.num_classes)
        )
        start = np.concatenate([plain.layers[:, :-1], added, plain.layers[:, -1:]], axis=1)
        tried, _ = _search(more, _shares(every.votes), (plain.precision,), start)
        if not _explains_less(plain, tried, every.votes):
            break
        problem, plain = more, tried
    return problem, plain


def _correct(problem: _Problem, plain: _Fitted) -> tuple[_Fitted, _Fitted]:
    """Takes step 2 as long as ℓ rises; returns the fits, and the first with the λ of step 1."""
    chosen, firsts = plain, []
    every = (*reversed(_STRONGER), *PRECISIONS)
    weaker = [each for each in every if each <= plain.precision]
    for _ in range(_MOST_RECOUNTS):
        counted = count_transitions(chosen.predicted, problem.votes)
        evidence = _scaled(log_evidence(problem.votes, counted))
        corrected, first = _search(problem, evidence, weaker, chosen.layers, counted)
        firsts.append(first)
        if corrected.channel.likelihood <= chosen.channel.likelihood:
            break
        chosen, weaker = corrected, [corrected.precision]
    return chosen, firsts[0]


def _explains_less(one: _Fitted, other: _Fitted, votes: Votes) -> bool:
    """Tells whether ℓ of one is lower, by a paired one-sided test at 5 %."""
    gains = np.log(_likelihoods(one, votes)) - np.log(_likelihoods(other, votes))
    return float(gains.sum()) < -_QUANTILE * float(gains.std()) * math.sqrt(len(gains))


def _mix(plain: _Fitted, corrected: _Fitted, votes: Votes) -> _Fitted:
    """Mixes the predictions of two fits, with the shares of the highest ℓ, unless ℓ falls."""
    likelihoods = [_likelihoods(fitted, votes) for fitted in (plain, corrected)]
    share = 0.5
    for _ in range(_MIXING_STEPS):
        joint = share * likelihoods[0]
        share = float((joint / (joint + (1 - share) * likelihoods[1])).mean())
    mixed = np.float32(share) * _tempered(plain)
    mixed += np.float32(1 - share) * _tempered(corrected)
    channel = estimate_channel(mixed, votes, corrected.channel.transitions)
    if channel.likelihood <= corrected.channel.likelihood:
        return corrected
    return replace(corrected, predicted=mixed, channel=channel)


def _likelihoods(fitted: _Fitted, votes: Votes) -> NDArray[np.float64]:
    """Returns the probability of each example's labels, float64 [n]."""
    evidence = np.exp(log_evidence(votes, fitted.channel.transitions)).T
    return (_tempered(fitted) * evidence).sum(1, dtype=np.float64) + TINY


def _tempered(fitted: _Fitted) -> NDArray[np.float32]:
    return sharpen(fitted.predicted, fitted.channel.sharpness)


def _search(
    problem: _Problem,
    evidence: NDArray[np.float32],
    precisions: Sequence[float],
    start: Layers | None = None,
    transitions: NDArray[np.float64] | None = None,
) -> tuple[_Fitted, _Fitted]:
    """Fits with each λ in turn until ℓ falls; returns the best fits, and the first.

    Without a start, each fit begins at the previous one, since logistic regression has one minimum.
    The forward-corrected loss has several, and under a stronger prior one of two confused classes
    may have vanished; so its fits all begin at `start`.
    """
    found: list[_Fitted] = []
    shape = (FOLDS, problem.features.shape[1] + 1, problem.votes.num_classes)
    starts = np.zeros((len(problem.deals), *shape)) if start is None else start.reshape(-1, *shape)
    for precision in precisions:
        scaled = precision / problem.variances
        layers, predicted = [], np.zeros((len(problem.features), shape[-1]), np.float32)
        for folds, first in zip(problem.deals, starts, strict=True):
            layers.append(fit(problem.features, evidence, folds, scaled, first))
            predicted += predict(layers[-1], problem.features, folds) / len(problem.deals)
        channel = estimate_channel(predicted, problem.votes, transitions)
        if found and channel.likelihood < found[-1].channel.likelihood:
            break
        best = _Fitted(precision, np.concatenate(layers), predicted, channel)
        found = [*found[:1], best]
        if start is None:
            starts = np.stack(layers)
    return found[-1], found[0]


def _scaled(logs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the evidence, [n, C], scaled to a largest entry of 1, from its logarithm, [C, n]."""
    return np.ascontiguousarray(np.exp(logs - logs.max(0)).T)


def _shares(votes: Votes) -> NDArray[np.float32]:
    """Returns the evidence of step 1: each class's share of the example's labels."""
    counts = _label_counts(votes.labels, votes.num_classes)
    is_trusted = votes.trusted != MISSING
    counts[is_trusted] = np.eye(votes.num_classes)[votes.trusted[is_trusted]]
    counts[counts.sum(1) == 0] = 1  # no label: uniform
    return (counts / counts.sum(1, keepdims=True)).astype(np.float32)


def _label_counts(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    counts = np.zeros((len(labels), num_classes))
    for column in labels.T:
        rows = np.flatnonzero(column != MISSING)
        counts[rows, column[rows]] += 1
    return counts


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
