# SPDX-License-Identifier: Apache-2.0
"""Labels passed from Python: class numbers or names, one per image.

Nothing is guessed: a fraction, a missing value or a masked entry is not a class. Converting it to
one would silently train on it.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ieg_core.data.tables import class_name, is_no_label
from ieg_core.errors import UserError

_EXPECTED: Final = "expected class numbers from 0, as integers, or names, one per image"


def read_labels(labels: ArrayLike) -> NDArray[Any]:
    """Normalizes labels to integers or strings.

    Args:
      labels: [n] integers, booleans (0 and 1), strings, or bytes in UTF-8; also of dtype object,
        such as the column of a data frame.

    Returns:
      [n], integers or `str` objects.

    Raises:
      UserError: When the shape or type is another one, or a label is missing.
    """
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise UserError(f"the labels do not form an array ({error}): {_EXPECTED}") from error
    if array.ndim == 2:
        fix = "labels.ravel()" if array.shape[1] == 1 else "labels.argmax(axis=1) if one-hot"
        raise UserError(f"the labels have shape {array.shape}: {_EXPECTED}; pass {fix}")
    if array.ndim != 1:
        raise UserError(
            f"the labels are {type(labels).__name__} of shape {array.shape}: {_EXPECTED}"
        )
    if np.ma.is_masked(labels):
        raise _missing(int(np.argmax(np.ma.asarray(labels).mask)), "masked")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = int(np.argmin(np.isfinite(array)))
        raise _missing(place, repr(array[place].item()))
    if array.dtype.kind == "f":
        raise UserError(
            f"the labels are {array.dtype}: {_EXPECTED}; if they are whole numbers, pass "
            "labels.astype(int)"
        )
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind == "b":
        return array.astype(np.int64)
    if array.dtype.kind not in "USO":
        raise UserError(f"the labels are {array.dtype}: {_EXPECTED}")
    if array.dtype.kind in "US" and not isinstance(labels, np.ndarray):
        array = np.asarray(labels, object)  # else NumPy turns a missing label into the name "nan"
    values = [_plain(value, place) for place, value in enumerate(array)]
    for place, value in enumerate(values):
        if type(value) is not type(values[0]):
            raise UserError(
                f"the label at {place} is {value!r}, but the first is {values[0]!r}: {_EXPECTED}, "
                "not both"
            )
    return np.array(values, None if values and isinstance(values[0], int) else object)


def class_numbers(labels: NDArray[Any], names: Sequence[str]) -> NDArray[np.int32]:
    """Converts labels to class numbers.

    Args:
      labels: [n], as returned by `read_labels`.
      names: C names, by class number.

    Returns:
      int32 [n] in 0 … C − 1.

    Raises:
      UserError: When a label is not one of the classes.
    """
    if labels.dtype.kind in "iu":
        if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
            raise UserError(
                f"the labels range from {labels.min()} to {labels.max()}: expected from 0 to "
                f"{len(names) - 1}, the number of classes minus one; leave out images without a "
                "label"
            )
        return labels.astype(np.int32)
    places = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(labels.tolist()) - places.keys())
    if unknown:
        raise UserError(
            f"the label {unknown[0]!r} is not a class: expected one of {', '.join(names)}"
        )
    return np.array([places[label] for label in labels], np.int32)


def _plain(value: Any, place: int) -> int | str:
    """Returns a label from an array of objects, strings or bytes as an `int` or `str`."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"the label at {place} is {value!r}: expected UTF-8") from error
    if isinstance(value, str):
        if is_no_label(value):
            raise _missing(place, repr(str(value)))
        return class_name(str(value))
    if isinstance(value, int | np.integer):
        return int(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        raise _missing(place, str(value))
    raise UserError(f"the label at {place} is {value!r} ({type(value).__name__}): {_EXPECTED}")


def _missing(place: int, value: str) -> UserError:
    return UserError(
        f"the label at {place} is missing ({value}): {_EXPECTED}; leave out images without a label"
    )
