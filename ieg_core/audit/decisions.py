# SPDX-License-Identifier: Apache-2.0
"""decisions.csv: a person's decisions about labels, as review.html saves them.

Each row has a `path`, a `label` and a `decision`, in the order of the review:

    keep        the given label is correct, and `label` repeats it
    suggestion  `label` is the class that the audit suggested
    other       `label` is another class
    drop        the image belongs to no class; `label` is empty

Cells that spreadsheets would execute are marked as text, see `ieg_core.data.tables`. Files without
these marks can be read, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.data.tables import read_columns
from ieg_core.errors import UserError, unknown_name

COLUMNS: Final = ("path", "label", "decision")
KEEP: Final = "keep"
SUGGESTION: Final = "suggestion"
OTHER: Final = "other"
DROP: Final = "drop"
KINDS: Final = (KEEP, SUGGESTION, OTHER, DROP)
CHANGES: Final = (SUGGESTION, OTHER)
_STEP: Final = 100
_MAX_CELL: Final = 60
_MAX_CLASSES: Final = 20


@dataclass(frozen=True)
class Decisions:
    """A person's decisions about m of n images.

    Attributes:
      indices: Indices of the images among all n, int64 [m], in the order of the review.
      labels: Confirmed classes, int32 [m]; `MISSING` for a dropped image.
      kinds: m of "keep", "suggestion", "other" and "drop".
    """

    indices: NDArray[np.int64]
    labels: NDArray[np.int32]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def changed_per_hundred(self) -> tuple[int, ...]:
        """Labels changed in each hundred reviews, in order; the last group may be smaller."""
        return tuple(
            sum(kind in CHANGES for kind in self.kinds[start : start + _STEP])
            for start in range(0, len(self), _STEP)
        )


def read_decisions(path: Path, names: Sequence[str], class_names: Sequence[str]) -> Decisions:
    """Reads decisions about images from a file.

    Args:
      path: A .csv file in UTF-8 with a header; other columns are ignored.
      names: The names of the n images.
      class_names: The names of the C classes.

    Returns:
      The decisions; of duplicate rows, only the first counts.

    Raises:
      UserError: When the file cannot be read, or a row has an unknown path, label or decision,
        lacks a label though the image is not dropped, or contradicts an earlier row.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(
            f"the decisions {path} have the extension {path.suffix!r}: expected .csv, as "
            "review.html saves them"
        )
    places = {name: place for place, name in enumerate(names)}
    classes = {name: number for number, name in enumerate(class_names)}
    columns = read_columns(path, COLUMNS, name=f"the decisions {path}")
    lines: dict[int, tuple[int, str, int]] = {}
    for row, cells in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True), 1):
        start = f"the decisions {path}, row {row}"
        name, label, kind = (cell or "" for cell in cells)
        place = _find(name, places)
        if place is None:
            raise UserError(
                f"{start}: the path {_short(name)} is not among the {len(names)} images; expected "
                "decisions about the audited images"
            )
        kind = kind.strip()
        if kind not in KINDS:
            raise UserError(f"{start}: {unknown_name('decision', kind[:_MAX_CELL], KINDS)}")
        number: int | None = MISSING
        # People who drop an image in a spreadsheet may leave its label, which is ignored.
        if kind != DROP:
            number = _find(label, classes)
        if number is None:
            shown = (*class_names[:_MAX_CLASSES], *("…",) * (len(class_names) > _MAX_CLASSES))
            raise UserError(f"{start}: {unknown_name('label', label[:_MAX_CELL], shown)}")
        if place in lines and lines[place][:2] != (number, kind):
            raise UserError(
                f"{start}: contradicts row {lines[place][2]} about {_short(names[place])}; "
                "expected one decision per image; remove one of the two"
            )
        lines.setdefault(place, (number, kind, row))
    return Decisions(
        indices=np.array(list(lines), np.int64),
        labels=np.array([label for label, _, _ in lines.values()], np.int32),
        kinds=tuple(kind for _, kind, _ in lines.values()),
    )


def rows(
    decisions: Decisions, names: Sequence[str], class_names: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Returns decisions as (path, label, decision)."""
    return [
        (names[place], "" if label == MISSING else class_names[label], kind)
        for place, label, kind in zip(
            decisions.indices.tolist(), decisions.labels.tolist(), decisions.kinds, strict=True
        )
    ]


def apply(images: LabeledImages, decisions: Decisions) -> LabeledImages:
    """Marks the labels that a person confirmed as trusted, and removes dropped images.

    Given labels are kept, so that the audit still learns how often they are wrong.

    Args:
      images: The n images.
      decisions: Decisions about them.

    Returns:
      The remaining images.

    Raises:
      UserError: When an image is already trusted as another class.
    """
    trusted = images.trusted.copy()
    confirmed = decisions.labels != MISSING
    places, labels = decisions.indices[confirmed], decisions.labels[confirmed]
    differs = (trusted[places] != MISSING) & (trusted[places] != labels)
    if differs.any():
        place, label = int(places[differs][0]), int(labels[differs][0])
        raise UserError(
            f"the decisions say that {_short(images.names[place])} is "
            f"{images.class_names[label]!r}, but it is trusted as "
            f"{images.class_names[trusted[place]]!r}: expected one class; change one of the two"
        )
    trusted[places] = labels
    left = np.setdiff1d(np.arange(len(images)), decisions.indices[~confirmed])
    if len(left) == len(images):
        return replace(images, trusted=trusted)
    indices = range(len(images)) if images.indices is None else images.indices
    chosen = left.tolist()
    return replace(
        images,
        names=tuple(images.names[place] for place in chosen),
        labels=images.labels[left],
        trusted=trusted[left],
        read=images.read and partial(_read, images.read, left),
        digests=images.digests and tuple(images.digests[place] for place in chosen),
        indices=[indices[place] for place in chosen],
    )


def _read(
    read: Callable[[int], NDArray[np.uint8]], places: NDArray[np.int64], index: int
) -> NDArray[np.uint8]:
    return read(int(places[index]))


def _find(cell: str, known: dict[str, int]) -> int | None:
    """Looks up a name, also where its own apostrophe was read as a mark, or without spaces."""
    return next((known[text] for text in (cell, f"'{cell}", cell.strip()) if text in known), None)


def _short(name: str) -> str:
    return repr(name if len(name) <= _MAX_CELL else f"{name[:_MAX_CELL]}…")
