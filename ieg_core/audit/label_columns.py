# SPDX-License-Identifier: Apache-2.0
"""Converts labels from Python objects to class numbers: columns by annotator, trusted labels."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.images import MISSING
from ieg_core.data.labels.from_python import class_numbers, read_labels
from ieg_core.errors import UserError

GIVEN: Final = "given"


def label_columns(labels: Any) -> dict[str, Sequence[Any]] | None:
    """Returns the labels by annotator."""
    if labels is None:
        return None
    if is_frame(labels):
        return {str(name): list(labels[name]) for name in labels.columns}
    if isinstance(labels, Mapping):
        return {str(name): _values(column) for name, column in labels.items()}
    values = _values(labels)
    first = values[0] if len(values) else None
    if isinstance(first, list | tuple | np.ndarray):
        widths = {len(each) for each in values}
        if len(widths) > 1 or 0 in widths:
            raise UserError(
                "the labels do not form a table: expected [n], or [n, a] for a annotators"
            )
        if len(first) > 1 and _are_probabilities(np.asarray(values)):
            raise UserError(
                f"the labels are probabilities or one-hot, of shape ({len(values)}, {len(first)}): "
                "expected classes; pass labels.argmax(axis=1)"
            )
        if len(first) == 1:
            return {GIVEN: [each[0] for each in values]}
        return {
            f"annotator_{number}": [each[number] for each in values] for number in range(len(first))
        }
    return {GIVEN: values}


def to_numbers(
    columns: Mapping[str, Sequence[Any]],
    trusted: Any,
    names: Sequence[str],
    indices: Sequence[Any] | None,
    class_names: Sequence[str] | None,
) -> tuple[NDArray[np.int32], NDArray[np.int32], tuple[str, ...]]:
    """Converts labels and trusted labels to class numbers.

    Args:
      columns: n labels by annotator, a of them.
      trusted: Labels known to be correct: [n], or a mapping from index to label; None for none.
      names: Names of the n images.
      indices: The caller's indices; None for 0 to n - 1.
      class_names: By class number; None for those of the labels.

    Returns:
      Labels, int32 [n, a]; trusted labels, int32 [n]; and the class names. Missing labels are
      `MISSING`.

    Raises:
      UserError: When labels are missing, of mixed kinds, or not class numbers from 0, or a trusted
        one is not a class.
    """
    if isinstance(class_names, str):
        raise UserError(f"class_names is {class_names!r}: expected a list of names")
    if class_names is not None and len(set(class_names)) < len(class_names):
        raise UserError(f"received the class_names {list(class_names)}: expected each name once")
    places = {} if trusted is None else trusted_places(trusted, names, indices)
    numbers, classes = _class_numbers([*columns.values()], [*places.values()], class_names)
    known = np.full(len(names), MISSING, np.int32)
    known[list(places)] = numbers[-1]
    return np.column_stack(numbers[:-1]), known, classes


def trusted_places(
    trusted: Any, names: Sequence[str], indices: Sequence[Any] | None
) -> dict[int, Any]:
    """Returns the trusted labels by index."""
    if hasattr(trusted, "iloc") and len(trusted) != len(names):
        trusted = dict(zip(trusted.index, trusted, strict=True))
    if not isinstance(trusted, Mapping):
        require_order(trusted, indices, "trusted labels")
        values = _values(trusted)
        if len(values) != len(names):
            raise UserError(
                f"received {len(values)} trusted labels for {len(names)} images: expected one per "
                "image, None if unknown, or a mapping from index to label"
            )
        return {place: value for place, value in enumerate(values) if not _is_missing(value)}
    places: dict[Any, int] = {name: place for place, name in enumerate(names)}
    places |= {key: place for place, key in enumerate(indices or range(len(names)))}
    if unknown := [key for key in trusted if key not in places]:
        raise UserError(
            f"trusted has the unknown index {unknown[0]!r}: expected indices of the data"
        )
    return {places[key]: value for key, value in trusted.items() if not _is_missing(value)}


def require_order(labels: Any, indices: Sequence[Any] | None, what: str = "labels") -> None:
    """Refuses a pandas object that has the index of the images in another order.

    Args:
      labels: Labels of any kind.
      indices: The caller's indices; None for 0 to n - 1.
      what: What messages call them.

    Raises:
      UserError: When the order differs, so that it is open which label belongs to which image.
    """
    if indices is None or not hasattr(labels, "iloc"):
        return
    found, expected = list(labels.index), list(indices)
    if found != expected and len(found) == len(expected) and set(found) == set(expected):
        raise UserError(
            f"the {what} have the index of the data in another order, beginning with {found[0]!r} "
            f"instead of {expected[0]!r}: expected one order; pass labels.loc[data.index], or "
            "list(labels) if only the index differs"
        )


def is_frame(value: Any) -> bool:
    """Returns whether a value is a DataFrame."""
    return hasattr(value, "columns") and hasattr(value, "iloc")


def kind_of(value: Any) -> str:
    """Returns what a message calls a value of an unexpected kind."""
    return type(value).__name__


def _values(column: Any) -> Sequence[Any]:
    if np.ma.is_masked(column):
        column = np.ma.filled(np.ma.asarray(column).astype(object), None)
    if isinstance(column, str) or not hasattr(column, "__len__"):
        raise UserError(f"the labels are {kind_of(column)}: expected one label per image")
    if hasattr(column, "__array__"):
        return list(np.asarray(column))
    return list(column)


def _are_probabilities(table: np.ndarray) -> bool:
    """Returns whether [n, a] holds probabilities or one-hot labels instead of classes."""
    if table.dtype.kind not in "iubf":
        return False
    return bool((table >= 0).all() and np.allclose(table.sum(1), 1, atol=1e-3))


def _class_numbers(
    given: Sequence[Sequence[Any]], trusted: Sequence[Any], class_names: Sequence[str] | None
) -> tuple[list[NDArray[np.int32]], tuple[str, ...]]:
    """Converts labels to class numbers, trusted ones last; the classes are those of `given`."""
    columns = [*given, trusted]
    masks = [np.array([_is_missing(value) for value in column], bool) for column in columns]
    has_gaps = any(mask.any() for mask in masks)
    read = []
    for column, mask in zip(columns, masks, strict=True):
        present: list[Any] = [
            value for value, is_missing in zip(column, mask, strict=True) if not is_missing
        ]
        # Integers are stored as floats if one is missing, in a table also those of other columns.
        if has_gaps and all(isinstance(each, float) and each.is_integer() for each in present):
            present = [int(each) for each in present]
        # NumPy would turn a number among names into a name.
        kind = object if any(isinstance(each, str | bytes) for each in present) else None
        read.append(read_labels(np.array(present, kind) if present else np.empty(0, np.int64)))
    used = [values for values in read[:-1] if values.size]
    if not used:
        raise UserError("all labels are missing: expected labels of at least two classes")
    kinds = {values.dtype.kind in "iu" for values in read if values.size}
    if class_names is not None:
        names = tuple(map(str, class_names))
    elif kinds == {True}:
        least = min(int(values.min()) for values in used)
        if least < 0:
            raise UserError(
                f"the smallest label is {least}: expected class numbers from 0, or {MISSING} for a "
                "missing label"
            )
        most, total = max(int(values.max()) for values in used), sum(len(each) for each in used)
        if most >= total:
            raise UserError(
                f"the largest label is {most}, but there are only {total} labels: expected class "
                "numbers from 0 without gaps, or names"
            )
        names = tuple(map(str, range(most + 1)))
    elif kinds == {False}:
        names = tuple(sorted({label for values in used for label in values.tolist()}))
    else:
        raise UserError("received both numbers and names as labels: expected only one kind")
    if len(names) < 2:
        raise UserError(f"all labels are {names[0]!r}: expected at least two classes")
    numbers = []
    for values, mask in zip(read, masks, strict=True):
        known = np.full(len(mask), MISSING, np.int32)
        known[~mask] = class_numbers(values, names)
        numbers.append(known)
    return numbers, names


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str | bytes):
        return not value.strip()
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value)) or value == MISSING
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value == MISSING
