# SPDX-License-Identifier: Apache-2.0
"""The input of an audit: images with one or several labels each, from any source."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.feature_posterior import MISSING
from ieg_core.errors import UserError


@dataclass(frozen=True)
class LabeledImages:
    """n images and their labels.

    Attributes:
      names: n unique names: paths relative to a folder, or a caller's index as text.
      class_names: C names, by class number.
      labels: int32 [n, a] for a annotators; `MISSING` for a missing label. The given label is the
        first in a row that is not missing.
      annotators: The names of the a columns.
      trusted: Confirmed classes, int32 [n]; `MISSING` elsewhere.
      read: Reads original image i, uint8 [H, W, 1 or 3]; None if there are only features.
      digests: SHA-256 of each image's content, hexadecimal; None if unknown.
      notes: What was left out or looked odd, one line each.
      indices: The caller's index of each image; None for 0 to n − 1.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: NDArray[np.int32]
    annotators: tuple[str, ...]
    trusted: NDArray[np.int32]
    read: Callable[[int], NDArray[np.uint8]] | None = None
    digests: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    indices: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        """Refuses parts whose sizes differ."""
        count = len(self.names)
        if self.labels.shape != (count, len(self.annotators)) or self.trusted.shape != (count,):
            raise UserError(
                f"received {count} images, labels {self.labels.shape} of {len(self.annotators)} "
                f"annotators and {self.trusted.shape} trusted classes: expected one row per image "
                "and one column per annotator"
            )
        for name, values in (("digests", self.digests), ("indices", self.indices)):
            if values is not None and len(values) != count:
                raise UserError(
                    f"received {len(values)} {name} for {count} images: expected one per image"
                )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def given(self) -> NDArray[np.int32]:
        """Each image's first label that is not missing, int32 [n]; `MISSING` if all are."""
        given = np.full(len(self), MISSING, np.int32)
        for column in reversed(self.labels.T):
            given = np.where(column != MISSING, column, given).astype(np.int32)
        return given
