# SPDX-License-Identifier: Apache-2.0
"""Dimensionality reduction: standardization and principal components.

Each feature is standardized over the examples, so that features of several networks can be
concatenated; the principal components are then scaled to variance 1. Their variances v before
scaling set the prior of a classifier: a prior of precision λ on the weights of standardized
features is a prior of precision λ / v on the weights of the scaled components.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.errors import UserError
from ieg_core.features.mapped import allocate, release

MOST_COMPONENTS: Final = 320
"""Of each network's features, unless a caller asks for more."""
_BLOCK: Final = 4096
_LEAST_DEVIATION: Final = 1e-6
_LEAST_SHARE: Final = 1e-6


@dataclass(frozen=True)
class Reduction:
    """A standardization and projection to principal components.

    Attributes:
      mean: Mean of each feature, float32 [D].
      projection: From standardized features to components of variance 1, float32 [D, d].
      deviation: Standard deviation of each feature, float32 [D].
      variances: Variances of the components before scaling, descending, float64 [d].
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    projection: NDArray[np.float32]
    variances: NDArray[np.float64]

    def apply(self, features: Sequence[np.ndarray]) -> NDArray[np.float32]:
        """Reduces features, float arrays [n, D₁], [n, D₂], …, to float32 [n, d]."""
        reduced = allocate(len(features[0]), self.projection.shape[1])
        start = 0
        for block in _blocks(features):
            np.matmul(
                self._standardize(block), self.projection, out=reduced[start : start + len(block)]
            )
            start += len(block)
            release(reduced)
        return reduced

    @property
    def scale(self) -> NDArray[np.float32]:
        """Factors that restore the components' relative variances, float32 [d]; mean square 1.

        Use them for a classifier with the same prior on all weights, so that directions in which
        standardized features hardly vary have little influence.
        """
        return np.sqrt(self.variances / self.variances.mean()).astype(np.float32)

    def first(self, count: int) -> "Reduction":
        """Returns the reduction to the first components alone, `count` at most."""
        return replace(
            self,
            projection=np.ascontiguousarray(self.projection[:, :count]),
            variances=self.variances[:count],
        )

    def _standardize(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        return (block - self.mean) / self.deviation


def reduce_features(
    features: Sequence[np.ndarray], most_components: int | None = None
) -> tuple[NDArray[np.float32], Reduction]:
    """Standardizes features and projects them to their principal components.

    Features are read in blocks, so they can be memory-mapped files; what is returned is one, too,
    if it is large (`mapped.allocate`).

    Args:
      features: Float arrays [n, D₁], [n, D₂], …, the same examples in the same order.
      most_components: Upper bound of d, which is also less than n; by default `MOST_COMPONENTS`
        for each of the arrays.

    Returns:
      The reduced features, float32 [n, d], and the reduction that produced them.

    Raises:
      UserError: When `check_features` refuses the features, or all examples have the same ones.
    """
    check_features(features)
    num_examples = len(features[0])
    total = sum(each.shape[1] for each in features)
    sums, squares = np.zeros(total), np.zeros(total)
    for block in _blocks(features):
        sums += block.sum(0, dtype=np.float64)
    mean = (sums / num_examples).astype(np.float32)
    for block in _blocks(features):
        squares += np.square(block - mean).sum(0, dtype=np.float64)
    deviation = np.sqrt(squares / num_examples)
    # A constant feature carries no information; dividing by almost 0 would amplify rounding errors.
    deviation[deviation < _LEAST_DEVIATION] = np.inf
    whole = Reduction(mean, deviation.astype(np.float32), np.empty((0, 0), np.float32), sums)
    covariance = np.zeros((total, total))
    for block in _blocks(features):
        standardized = whole._standardize(block)
        covariance += standardized.T @ standardized
    variances, directions = np.linalg.eigh(covariance / num_examples)
    variances, directions = variances[::-1], directions[:, ::-1]
    most = MOST_COMPONENTS * len(features) if most_components is None else most_components
    kept = min(most, num_examples - 1, total)
    kept = min(kept, int((variances > _LEAST_SHARE * max(variances[0], 1e-30)).sum()))
    if not kept or not variances[0] > 0:
        raise UserError("all examples have the same features: expected features that differ")
    projection = (directions[:, :kept] / np.sqrt(variances[:kept])).astype(np.float32)
    reduction = Reduction(mean, whole.deviation, projection, variances[:kept].copy())
    return reduction.apply(features), reduction


def check_features(features: Sequence[np.ndarray], names: Sequence[str] = ()) -> None:
    """Refuses features that are not finite matrices with the same number of rows.

    Args:
      features: The arrays.
      names: Where each was read from, for the message; empty for arrays in memory.

    Raises:
      UserError: When they are not.
    """
    if not features:
        raise UserError("received no features: expected at least one array [n, D]")
    files = f" in {' and '.join(names)}" if names else ""
    shapes = [each.shape for each in features]
    if any(len(shape) != 2 or min(shape) < 1 for shape in shapes):
        raise UserError(
            f"features{files} have the shapes {shapes}: expected [n, D], one row per example"
        )
    if len({shape[0] for shape in shapes}) > 1:
        raise UserError(
            f"features{files} have the shapes {shapes}: expected the same number of rows"
        )
    if shapes[0][0] < 2:
        raise UserError(f"received features{files} of one example: expected at least two")
    for block_start, block in zip(range(0, shapes[0][0], _BLOCK), _blocks(features), strict=True):
        broken = ~np.isfinite(block).all(1)
        if broken.any():
            row = block_start + int(broken.argmax())
            last = np.cumsum([shape[1] for shape in shapes]) - 1
            column = int(np.isfinite(block[row - block_start]).argmin())
            file = f" in {names[int(np.searchsorted(last, column))]}" if names else ""
            raise UserError(
                f"the features of row {row}{file} are not finite: expected finite numbers"
            )


def _blocks(features: Sequence[np.ndarray]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(features[0]), _BLOCK):
        rows = [np.asarray(each[start : start + _BLOCK], np.float32) for each in features]
        yield rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)
        for each in features:
            release(each)
