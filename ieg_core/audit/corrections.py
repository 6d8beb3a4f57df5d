# SPDX-License-Identifier: Apache-2.0
"""Reads the corrections that people made in other tools, as decisions of an audit.

A tool exports every label, including those that nobody looked at. Only a person's work counts as a
decision: a label that differs from the given one, or one that the tool marks as reviewed.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, Final
from urllib.parse import unquote

import numpy as np

from ieg_core.audit.decisions import KEEP, OTHER, Decisions
from ieg_core.audit.images import LabeledImages
from ieg_core.data.tables import SUFFIXES, read_columns
from ieg_core.errors import UserError, unknown_name
from ieg_core.store.seal import parse_json

CORRECTED: Final = ("corrected_label", "clean_label", "new_label")
REVIEWED: Final = "reviewed"
IMAGE: Final = "image"
"""The key of an image's address in a Label Studio task."""


def fiftyone_id(name: str) -> str:
    """Returns FiftyOne's key of an image in labels.json: its name without the suffix."""
    return PurePosixPath(name).with_suffix("").as_posix() if PurePosixPath(name).name else name


def read_label_studio(images: LabeledImages, path: Path) -> Decisions:
    """Reads corrections from a Label Studio project exported as JSON.

    An annotation submitted by a person has a lead time, an imported one does not; the latest one
    counts. Skipped tasks are ignored.

    Args:
      images: The images whose audit `write_label_studio` wrote.
      path: The file.

    Returns:
      The decisions, in the order of the file.

    Raises:
      UserError: When the file is not such an export, or names an unknown image or class.
    """
    tasks = _read_json(
        path, list, "Label Studio", "a project exported as JSON, not JSON-MIN or CSV"
    )
    places = {name: place for place, name in enumerate(images.names)}
    corrections = []
    for number, task in enumerate(tasks):
        data = task.get("data") if isinstance(task, dict) else None
        annotations = task.get("annotations", []) if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(annotations, list):
            raise UserError(
                f"task {number} of {path} has no data or annotations: expected a Label Studio "
                "project, exported as JSON"
            )
        place = places.get(str(data.get("name", "")))
        if place is None:
            image = unquote(str(data.get(IMAGE, "")))
            ends = [index for name, index in places.items() if image.endswith(name)]
            place = ends[0] if len(ends) == 1 else None
        if place is None:
            raise _unknown_image(path, str(data.get("name", data.get(IMAGE))))
        done = [
            each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")
        ]
        done.sort(key=lambda each: str(each.get("updated_at") or ""))
        chosen = [(label, bool(each.get("lead_time"))) for each in done for label in _chosen(each)]
        touched = [label for label, is_touched in chosen if is_touched]
        if touched:
            corrections.append((place, touched[-1], True))
        elif chosen:
            corrections.append((place, chosen[-1][0], False))
    return _decisions(images, path, corrections)


def read_cleanlab(images: LabeledImages, path: Path) -> Decisions:
    """Reads corrections from a table with the columns `path` and one of `CORRECTED`.

    A row without a corrected label is ignored; one that repeats the given label keeps it.

    Args:
      images: The images whose audit `write_cleanlab` wrote.
      path: The .csv or .parquet file.

    Returns:
      The decisions, in the order of the file.

    Raises:
      UserError: When the file is not such a table, or names an unknown image or class.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot read a table from {path}: expected {' or '.join(SUFFIXES)}")
    columns = read_columns(path, ("path",), CORRECTED)
    corrected = next((name for name in CORRECTED if name in columns), None)
    if corrected is None:
        raise UserError(
            f"{path} has no corrected labels: expected a column {' or '.join(CORRECTED)}, empty "
            "for labels that nobody reviewed"
        )
    places = {name: place for place, name in enumerate(images.names)}
    corrections = []
    for name, label in zip(columns["path"], columns[corrected], strict=True):
        if str(name) not in places:
            raise _unknown_image(path, str(name))
        # In a Parquet file from pandas, null may be NaN.
        if label is not None and label == label and str(label).strip():
            corrections.append((places[str(name)], str(label), True))
    return _decisions(images, path, corrections)


def read_fiftyone(images: LabeledImages, path: Path) -> Decisions:
    """Reads corrections from the labels.json of a FiftyOneImageClassificationDataset.

    Labels that differ from the given one count, and any with the attribute "reviewed".

    Args:
      images: The images whose audit `write_fiftyone` wrote.
      path: The file.

    Returns:
      The decisions, in the order of the file.

    Raises:
      UserError: When the file has another format, or names an unknown image or class.
    """
    value = _read_json(
        path, dict, "FiftyOne", "the labels.json of an image classification data set"
    )
    labels, classes = value.get("labels"), value.get("classes")
    if not isinstance(labels, dict) or not isinstance(classes, list | None):
        raise UserError(
            f"{path} has no labels: expected FiftyOne's labels.json of an image classification "
            "data set"
        )
    places = {fiftyone_id(name): place for place, name in enumerate(images.names)}
    places |= {name: place for place, name in enumerate(images.names)}
    ends: dict[str, list[int]] = {}
    for number, name in enumerate(images.names):
        ends.setdefault(PurePosixPath(fiftyone_id(name)).name, []).append(number)
    corrections = []
    for key, target in labels.items():
        place = places.get(key, places.get(fiftyone_id(key)))
        if place is None:
            # Without rel_dir FiftyOne identifies files by their base names or absolute paths.
            same = ends.get(PurePosixPath(key).name) or ends.get(
                PurePosixPath(fiftyone_id(key)).name, []
            )
            if "/" in key:
                same = [
                    each
                    for each in same
                    if fiftyone_id(key).endswith(f"/{fiftyone_id(images.names[each])}")
                ]
            if len(same) != 1:
                raise _unknown_image(
                    path, key, "; export with rel_dir set to the folder of the images"
                )
            place = same[0]
        attributes: Any = {}
        if isinstance(target, list) and len(target) == 1:
            target = target[0]  # from a field of several labels
        if isinstance(target, dict):
            kept, target = target.get("attributes"), target.get("label")
            attributes = kept if isinstance(kept, dict) else {}
        if target is None:
            continue
        if classes is not None and isinstance(target, int) and 0 <= target < len(classes):
            target = classes[target]
        corrections.append((place, str(target), bool(attributes.get(REVIEWED))))
    return _decisions(images, path, corrections)


IMPORTS: Final[Mapping[str, Callable[[LabeledImages, Path], Decisions]]] = {
    "label-studio": read_label_studio,
    "cleanlab": read_cleanlab,
    "fiftyone": read_fiftyone,
}
"""Functions that read a tool's corrections of an audit, by the tool's name."""


def import_decisions(images: LabeledImages, path: Path, tool: str = "") -> Decisions:
    """Reads corrections of labels that were made in another tool.

    Args:
      images: The images.
      path: The file.
      tool: A tool in `IMPORTS`; "" to find out by the file.

    Raises:
      UserError: When there is no such tool, or the file is not one of its exports.
    """
    tool = tool or _find_tool(path)
    if tool not in IMPORTS:
        raise unknown_name("import", tool, IMPORTS)
    return IMPORTS[tool](images, path)


def _find_tool(path: Path) -> str:
    if path.suffix.lower() in SUFFIXES:
        return "cleanlab"
    expected = f"its JSON, or a table ending in {' or '.join(SUFFIXES)}"
    value = _read_json(path, list | dict, "Label Studio or FiftyOne", expected)
    return "fiftyone" if isinstance(value, dict) else "label-studio"


def _decisions(
    images: LabeledImages, path: Path, corrections: list[tuple[int, str, bool]]
) -> Decisions:
    """Returns decisions from (index, label, whether a person reviewed it)."""
    classes = {name: number for number, name in enumerate(images.class_names)}
    given = images.given.tolist()
    decided: dict[int, tuple[int, str]] = {}
    for place, label, is_reviewed in corrections:
        number = classes.get(label, classes.get(label.strip()))
        if number is None:
            raise UserError(f"{path}: {unknown_name('class', label, classes)}")
        if number == given[place] and not is_reviewed:
            continue
        kind = KEEP if number == given[place] else OTHER
        if decided.setdefault(place, (number, kind))[0] != number:
            raise UserError(
                f"{path} says that {images.names[place]} is "
                f"{images.class_names[decided[place][0]]!r} and "
                f"{images.class_names[number]!r}: expected one class; remove one of the two"
            )
    return Decisions(
        indices=np.array(list(decided), np.int64),
        labels=np.array([label for label, _ in decided.values()], np.int32),
        kinds=tuple(kind for _, kind in decided.values()),
    )


def _chosen(annotation: dict[str, Any]) -> Iterator[str]:
    """Yields the label of an annotation, if it has one."""
    parts = annotation.get("result")
    for part in parts if isinstance(parts, list) else ():
        value = part.get("value") if isinstance(part, dict) else None
        choices = value.get("choices") if isinstance(value, dict) else None
        if isinstance(choices, list) and len(choices) == 1:
            yield str(choices[0])


def _unknown_image(path: Path, name: str, fix: str = "") -> UserError:
    return UserError(
        f"{path} is about {name[:80]!r}, which is not an image of this audit: expected corrections "
        f"of the audited images{fix}"
    )


def _read_json(path: Path, kind: type | UnionType, tool: str, expected: str) -> Any:
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not valid JSON"
        raise UserError(
            f"cannot read {path} ({reason}): expected a file from {tool}, {expected}"
        ) from error
    if not isinstance(value, kind):
        raise UserError(f"{path} is not a file from {tool}: expected {expected}")
    return value
