# SPDX-License-Identifier: Apache-2.0
"""Labels as people hand them over in Python: class numbers or names, one for each image.

Nothing is guessed: a number with a fraction, a gap in a table or a masked entry is no class, and to
make one of it would train on it in silence.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ieg_core.errors import UserError

_EXPECTED: Final = "expected class numbers from 0, as integers, or names, one for each image"


def read_labels(labels: ArrayLike) -> NDArray[Any]:
    """Brings labels into one of two forms.

    Args:
      labels: [n] integers, booleans (0 and 1), strings, or bytes in UTF-8; also as objects, as a
        table's column has them.

    Returns:
      [n], integers or `str` objects.

    Raises:
      UserError: Another shape or type, or a label is missing.
    """
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise UserError(f"the labels are no array ({error}): {_EXPECTED}") from error
    if array.ndim == 2:
        mend = "labels.ravel()" if array.shape[1] == 1 else "labels.argmax(axis=1) if one-hot"
        raise UserError(f"the labels have the shape {array.shape}: {_EXPECTED}; say {mend}")
    if array.ndim != 1:
        raise UserError(
            f"the labels are {type(labels).__name__} of the shape {array.shape}: {_EXPECTED}"
        )
    if np.ma.is_masked(labels):
        raise _missing(int(np.argmax(np.ma.asarray(labels).mask)), "masked")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = int(np.argmin(np.isfinite(array)))
        raise _missing(place, repr(array[place].item()))
    if array.dtype.kind == "f":
        raise UserError(
            f"the labels are {array.dtype}: {_EXPECTED}; where they are whole numbers say "
            "labels.astype(int)"
        )
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind == "b":
        return array.astype(np.int64)
    if array.dtype.kind not in "USO":
        raise UserError(f"the labels are {array.dtype}: {_EXPECTED}")
    if array.dtype.kind in "US" and not isinstance(labels, np.ndarray):
        array = np.asarray(labels, object)  # or NumPy has made the name "nan" of a missing one
    values = [_plain(value, place) for place, value in enumerate(array)]
    for place, value in enumerate(values):
        if type(value) is not type(values[0]):
            raise UserError(
                f"the label at {place} is {value!r}, the first one {values[0]!r}: {_EXPECTED}, not "
                "both"
            )
    return np.array(values, None if values and isinstance(values[0], int) else object)


def class_numbers(labels: NDArray[Any], names: Sequence[str]) -> NDArray[np.int32]:
    """Turns labels into class numbers.

    Args:
      labels: As `read_labels` returns them.
      names: C names, by class number.

    Returns:
      int32 [n] in 0 … C − 1.

    Raises:
      UserError: A label is none of the classes.
    """
    if labels.dtype.kind in "iu":
        if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
            raise UserError(
                f"the labels run from {labels.min()} to {labels.max()}: expected from 0 to "
                f"{len(names) - 1}, the number of classes less one; leave images without a label "
                "out"
            )
        return labels.astype(np.int32)
    places = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(labels.tolist()) - places.keys())
    if unknown:
        raise UserError(f"the label {unknown[0]!r} is no class: expected {', '.join(names)}")
    return np.array([places[label] for label in labels], np.int32)


def _plain(value: Any, place: int) -> int | str:
    """Returns one label of an array of objects, strings or bytes."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"the label at {place} is {value!r}: expected UTF-8") from error
    if isinstance(value, str):
        if not value.strip():
            raise _missing(place, repr(str(value)))
        return str(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        raise _missing(place, str(value))
    raise UserError(f"the label at {place} is {value!r} ({type(value).__name__}): {_EXPECTED}")


def _missing(place: int, value: str) -> UserError:
    return UserError(
        f"the label at {place} is missing ({value}): {_EXPECTED}; leave images without a label out"
    )
