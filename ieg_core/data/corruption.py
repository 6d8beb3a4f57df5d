# SPDX-License-Identifier: Apache-2.0
"""Label noise by transition matrix, the long tail, and class-balanced selections.

T[true, observed] is the probability that an example of class `true` is labeled `observed`. All
functions are pure. Random draws are arguments: one uniform in [0, 1) per example, so that the
result for one example does not depend on the others.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ieg_core.data.base import Labels
from ieg_core.errors import UserError
from ieg_core.experiment.base_datasets import BASES
from ieg_core.experiment.dataset_spec import DatasetSpec

Matrix = NDArray[np.float64]
Uniforms = NDArray[np.float64]
Counts = NDArray[np.int64]


def transition_matrix(spec: DatasetSpec, num_classes: int = 0) -> Matrix:
    """Returns the transition matrix of a spec; the identity without noise.

    Args:
      spec: The data set with its noise.
      num_classes: C, if only the data determine it; 0 for the number of the base data set.

    Returns:
      T, float64 [C, C], rows summing to 1.
    """
    num_classes, rate = num_classes or spec.num_classes, spec.noise_rate or 0.0
    if spec.noise == "uniform":
        return uniform_transition(num_classes, rate)
    if spec.noise == "asymmetric":
        return asymmetric_transition(num_classes, rate, BASES[spec.base].lookalikes or {})
    return np.eye(num_classes)


def uniform_transition(num_classes: int, noise_rate: float) -> Matrix:
    """Returns the matrix of uniform noise: with probability r a label is redrawn from all classes.

    T = (1 - r)·I + r/C

    The correct class is among them, so the true flip rate is r·(C-1)/C.

    Args:
      num_classes: C.
      noise_rate: r, in [0, 1].

    Returns:
      T, float64 [C, C].
    """
    return (1 - noise_rate) * np.eye(num_classes) + noise_rate / num_classes


def asymmetric_transition(
    num_classes: int, noise_rate: float, lookalikes: Mapping[int, int]
) -> Matrix:
    """Returns the matrix of asymmetric noise: each source class c is confused with its look-alike.

    T[c, look-alike of c] = r,   T[c, c] = 1 - r

    Args:
      num_classes: C.
      noise_rate: r, in [0, 1].
      lookalikes: The look-alike of each source class, by class number.

    Returns:
      T, float64 [C, C].
    """
    matrix = np.eye(num_classes)
    for true_class, observed in lookalikes.items():
        matrix[true_class, true_class] -= noise_rate
        matrix[true_class, observed] += noise_rate
    return matrix


def corrupt_labels(clean_labels: Labels, transition: Matrix, uniforms: Uniforms) -> Labels:
    """Draws observed labels by inverting the cumulative distribution of each row.

    noisy_i = the smallest class c with uniform_i < Σ_{j ≤ c} T[clean_i, j]

    Args:
      clean_labels: int32 [N].
      transition: T, float64 [C, C], rows summing to 1.
      uniforms: float64 [N] in [0, 1).

    Returns:
      The observed labels, int32 [N].
    """
    cumulative = np.cumsum(transition, axis=1)
    # Dividing makes the last entry exactly 1, so rounding cannot yield an index beyond the classes
    # or a class of probability 0.
    cumulative /= cumulative[:, -1:]
    noisy = np.empty_like(clean_labels)
    for true_class, row in enumerate(cumulative):
        members = clean_labels == true_class
        noisy[members] = np.searchsorted(row, uniforms[members], side="right")
    return noisy


def realized_matrix(clean_labels: Labels, noisy_labels: Labels, num_classes: int) -> Matrix:
    """Counts pairs of clean and noisy labels, and divides each row by its sum.

    Args:
      clean_labels: int [N].
      noisy_labels: int [N].
      num_classes: C.

    Returns:
      float64 [C, C], rows summing to 1; a row of zeros for a class without examples.
    """
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (clean_labels, noisy_labels), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def expected_matrix(beliefs: Matrix, noisy_labels: Labels, prior: float = 0.0) -> Matrix:
    """Returns the expectation of the realized matrix under beliefs about the clean labels.

    T[c, k] = (a/C + Σ_{i: y_i = k} q_i(c)) / (a + Σ_i q_i(c))

    Args:
      beliefs: q, a distribution over the classes for each example, float [n, C].
      noisy_labels: y, int [n].
      prior: a, the weight of a uniform prior on each row, in examples.

    Returns:
      float64 [C, C], rows summing to 1; without a prior, a row of zeros for a class that no
      example is believed to have.
    """
    num_classes = beliefs.shape[1]
    counts = np.full((num_classes, num_classes), prior / num_classes)
    np.add.at(counts.T, noisy_labels, beliefs)
    sums = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, sums, where=sums > 0, out=np.zeros_like(counts))


def long_tail_counts(class_counts: Counts, imbalance: float) -> Counts:
    """Returns the class sizes of a long tail, capped at the available examples.

    n_c = ⌊n_max·rho^(c/(C-1))⌋

    Args:
      class_counts: Available examples of each class, int64 [C].
      imbalance: rho in (0, 1], smallest class / largest class.

    Returns:
      int64 [C], each at most `class_counts`.

    Raises:
      UserError: When a class would have no example.
    """
    num_classes = len(class_counts)
    exponents = np.arange(num_classes) / max(num_classes - 1, 1)
    # The tolerance keeps an exact size such as 5000·0.1 from being rounded down by one.
    targets = np.floor(class_counts.max() * imbalance**exponents + 1e-9).astype(np.int64)
    counts = np.minimum(targets, class_counts)
    if counts.min() < 1:
        raise UserError(
            f"imbalance {imbalance} leaves class {int(counts.argmin())} without an example "
            f"(the largest class has {class_counts.max()}): expected at least "
            f"{1 / class_counts.max():.2g}"
        )
    return counts


def select_per_class(
    labels: Labels, candidates: NDArray[np.int64], counts: Counts, uniforms: Uniforms
) -> NDArray[np.int64]:
    """Selects, in each class, the candidates with the smallest draws.

    A larger count selects a superset of the examples that a smaller count selects.

    Args:
      labels: Class of every example, int32 [N].
      candidates: Indices to select from, int64 [n].
      counts: Examples to select from each class, int64 [C], at most the candidates of that class.
      uniforms: float64 [N] in [0, 1), one for every example.

    Returns:
      The selected indices in ascending order, int64 [Σ counts].
    """
    by_draw = candidates[np.argsort(uniforms[candidates], kind="stable")]
    chosen = [by_draw[labels[by_draw] == c][:count] for c, count in enumerate(counts)]
    return np.sort(np.concatenate(chosen))
