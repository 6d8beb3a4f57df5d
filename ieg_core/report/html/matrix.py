# SPDX-License-Identifier: Apache-2.0
"""Confusion matrices: a small picture, numbers where they fit, the most frequent confusions."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

LEVELS = 64
BLUE = (36, 104, 178)
MOST_NUMBERED_CLASSES = 20
WHITE_TEXT_ABOVE = 0.6
"""The share above which white text on the blue has more contrast than dark text."""


@dataclass(frozen=True)
class MatrixCell:
    """A number on the picture: row, column, percent, and whether the background is dark."""

    row: int
    column: int
    text: str
    strong: bool


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix, ready for the template.

    Attributes:
      image: A PNG as a data URI, one pixel per entry, transparent where the share is 0.
      class_names: C names.
      numbers: The entries of at least half a percent; empty if there are many classes.
      worst: (true class, predicted class, percent of the true class), the largest first.
    """

    title: str
    image: str
    class_names: tuple[str, ...]
    numbers: tuple[MatrixCell, ...]
    worst: tuple[tuple[str, str, str], ...]


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Divides each row by its sum; a row without examples remains 0.

    Args:
      counts: Non-negative [C, C], rows = true class.

    Returns:
      Shares, float64 [C, C].
    """
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)


def build_confusion(
    title: str, matrices: Sequence[np.ndarray], class_names: tuple[str, ...]
) -> Confusion:
    """Sums the matrices of the seeds and prepares the sum for display.

    Args:
      title: The title of the figure.
      matrices: Counts, int [C, C] each, rows = true class; at least one.
      class_names: C names.

    Returns:
      The matrix, ready for the template.
    """
    shares = row_shares(np.stack(matrices).sum(axis=0))
    numbered = len(shares) <= MOST_NUMBERED_CLASSES
    numbers = [
        MatrixCell(int(row), int(column), f"{100 * shares[row, column]:.0f}",
                   bool(shares[row, column] > WHITE_TEXT_ABOVE))
        for row, column in np.argwhere(shares >= 0.005)
    ]  # fmt: skip
    return Confusion(
        title, picture(shares), class_names, tuple(numbers) if numbered else (),
        worst_mixups(shares, class_names),
    )  # fmt: skip


def worst_mixups(
    shares: np.ndarray, class_names: Sequence[str], most: int = 5
) -> tuple[tuple[str, str, str], ...]:
    """Lists the largest entries off the diagonal; ties in the classes' order."""
    off_diagonal = np.where(np.eye(len(shares), dtype=bool), 0.0, shares)
    order = np.argsort(-off_diagonal, axis=None, kind="stable")[:most]
    pairs = [divmod(int(index), len(shares)) for index in order]
    return tuple(
        (class_names[row], class_names[column], f"{100 * shares[row, column]:.1f} %")
        for row, column in pairs
        if off_diagonal[row, column] > 0
    )


def picture(shares: np.ndarray) -> str:
    """Draws shares as a PNG of one hue; a pixel's opacity is the cube root of the share.

    The root makes a few percent off the diagonal visible. Opacity instead of brightness suits
    both a light and a dark page.

    Args:
      shares: float [C, C] in [0, 1].

    Returns:
      A data URI.
    """
    levels = np.rint(np.cbrt(np.clip(shares, 0, 1)) * (LEVELS - 1)).astype(np.uint8)
    image = Image.fromarray(levels)
    image.putpalette(bytes(BLUE) * LEVELS)
    opacity = bytes(round(255 * level / (LEVELS - 1)) for level in range(LEVELS))
    file = io.BytesIO()
    image.save(file, "PNG", transparency=opacity, compress_level=9)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
