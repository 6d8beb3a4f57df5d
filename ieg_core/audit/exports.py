# SPDX-License-Identifier: Apache-2.0
"""Exports audits to other tools, and imports the corrections made there as decisions.

A tool exports every label, including those that nobody looked at. Only a person's work counts as a
decision: a label that differs from the given one, or one that the tool marks as reviewed.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, Final
from urllib.parse import quote, unquote
from xml.sax.saxutils import quoteattr

import numpy as np

from ieg_core.audit.decisions import KEEP, OTHER, Decisions
from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.audit.label_audit import LabelAudit
from ieg_core.data.tables import SUFFIXES, read_columns, to_csv, to_parquet
from ieg_core.errors import UserError, unknown_name
from ieg_core.host.files import write_bytes_atomic
from ieg_core.store.seal import parse_json

CORRECTED: Final = ("corrected_label", "clean_label", "new_label")
REVIEWED: Final = "reviewed"
_CHOICE, _IMAGE = "choice", "image"
_DIGITS: Final = 6


def write_label_studio(audit: LabelAudit, path: Path, *, prefix: str = "") -> None:
    """Writes tasks for import into Label Studio, and the labeling configuration next to them.

    Each task has the image's address, the given label as an annotation and the suggestion as a
    prediction with its probability q; the most suspicious comes first. `data.name` identifies the
    image when the project is exported again.

    Source: https://labelstud.io/guide/predictions and https://labelstud.io/guide/task_format.

    Args:
      audit: The audit.
      path: The file of tasks, .json; the configuration has the same name with the suffix .xml.
      prefix: Prefix that turns an image's path, percent-encoded, into its address, such as
        "https://…/" or what `local_files` returns; "" for none, the paths as they are.

    Raises:
      UserError: When a file cannot be written.
    """
    names = audit.images.class_names
    tasks = []
    for place in audit.all_places.tolist():
        given, suggested = int(audit.given[place]), int(audit.suggested[place])
        name = audit.images.names[place]
        task: dict[str, Any] = {
            "data": {
                _IMAGE: prefix + quote(name) if prefix else name,
                "name": name,
                "score": _score(audit, place),
            },
            "predictions": [
                {
                    "model_version": "ieg-core",
                    "score": round(float(audit.evidence.q[place, suggested]), _DIGITS),
                    "result": [_choices(f"suggested-{place}", names[suggested])],
                }
            ],
        }
        if given != MISSING:
            task["annotations"] = [{"result": [_choices(f"given-{place}", names[given])]}]
        tasks.append(task)
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in names)
    config = (
        f'<View>\n  <Image name="{_IMAGE}" value="${_IMAGE}"/>\n'
        f'  <Choices name="{_CHOICE}" toName="{_IMAGE}" choice="single">\n{choices}'
        "  </Choices>\n</View>\n"
    )
    _write_json(path, tasks)
    write_bytes_atomic(path.with_suffix(".xml"), config.encode())


def local_files(folder: Path) -> str:
    """Returns the prefix under which Label Studio serves a folder whose parent is its root.

    Source: https://labelstud.io/guide/storage, section Local storage.

    Args:
      folder: The folder.
    """
    return f"/data/local-files/?d={quote(folder.name)}/"


def write_cleanlab(audit: LabelAudit, path: Path) -> None:
    """Writes the table that cleanlab's `Datalab.get_issues("label")` returns, with paths.

    `label_score` is q(given): as in cleanlab, low scores are suspicious. `label_quality`, its name
    in `CleanLearning`, has the same values. Rows are in the order of the data.

    Source: https://docs.cleanlab.ai/stable/cleanlab/datalab/guide/issue_type_description.html and
    https://docs.cleanlab.ai/stable/cleanlab/classification.html.

    Args:
      audit: The audit.
      path: A .csv or .parquet file.

    Raises:
      UserError: When the extension is neither of these, or the file cannot be written.
    """
    columns = cleanlab_columns(audit)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"cannot write a table to {path}: expected a name ending in {' or '.join(SUFFIXES)}"
        )
    write_bytes_atomic(path, to_csv(columns) if suffix == ".csv" else to_parquet(columns))


def cleanlab_columns(audit: LabelAudit) -> dict[str, list[Any]]:
    """Returns the columns of `write_cleanlab`, one row per image; None without a label."""
    names, is_judged = audit.images.class_names, np.zeros(len(audit.images), bool)
    is_judged[audit.order] = True
    quality = [
        None if np.isnan(score) else round(1 - float(score), _DIGITS) for score in audit.score
    ]
    return {
        "path": list(audit.images.names),
        "is_label_issue": (is_judged & (audit.suggested != audit.given)).tolist(),
        "label_score": quality,
        "label_quality": quality,
        "given_label": [None if label == MISSING else names[label] for label in audit.given],
        "predicted_label": [names[label] for label in audit.suggested],
    }


def write_fiftyone(audit: LabelAudit, path: Path) -> None:
    """Writes the labels.json of a FiftyOneImageClassificationDataset.

    `fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneImageClassificationDataset,
    data_path=FOLDER, labels_path=FILE)` reads it. An image's label is the given one, with q(given)
    as its confidence; its attributes are the suggestion, the score and the rank, 0 for the most
    suspicious.

    Source: https://docs.voxel51.com/user_guide/import_datasets.html, section
    FiftyOneImageClassificationDataset.

    Args:
      audit: The audit.
      path: The file.

    Raises:
      UserError: When two image names differ only in their suffix, which FiftyOne ignores, or the
        file cannot be written.
    """
    names = audit.images.class_names
    labels: dict[str, Any] = {}
    for rank, place in enumerate(audit.all_places.tolist()):
        key = _stem(audit.images.names[place])
        if key in labels:
            raise UserError(
                f"two images are called {key} apart from the suffix: expected names that differ "
                "without it, since FiftyOne ignores it; rename one"
            )
        given = int(audit.given[place])
        score = _score(audit, place)
        labels[key] = None  # in FiftyOne, an image without a label
        if score is not None:
            attributes: dict[str, Any] = {"suggested": names[audit.suggested[place]]}
            attributes["score"] = score
            if rank < len(audit.order):
                attributes["rank"] = rank
            confidence = round(1 - score, _DIGITS)
            labels[key] = {"label": given, "confidence": confidence, "attributes": attributes}
    _write_json(path, {"classes": list(names), "labels": labels})


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
            image = unquote(str(data.get(_IMAGE, "")))
            ends = [index for name, index in places.items() if image.endswith(name)]
            place = ends[0] if len(ends) == 1 else None
        if place is None:
            raise _unknown_image(path, str(data.get("name", data.get(_IMAGE))))
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
    places = {_stem(name): place for place, name in enumerate(images.names)}
    places |= {name: place for place, name in enumerate(images.names)}
    ends: dict[str, list[int]] = {}
    for number, name in enumerate(images.names):
        ends.setdefault(PurePosixPath(_stem(name)).name, []).append(number)
    corrections = []
    for key, target in labels.items():
        place = places.get(key, places.get(_stem(key)))
        if place is None:
            # Without rel_dir FiftyOne identifies files by their base names or absolute paths.
            same = ends.get(PurePosixPath(key).name) or ends.get(PurePosixPath(_stem(key)).name, [])
            if "/" in key:
                same = [
                    each for each in same if _stem(key).endswith(f"/{_stem(images.names[each])}")
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


EXPORTS: Final[Mapping[str, Callable[..., None]]] = {
    "label-studio": write_label_studio,
    "cleanlab": write_cleanlab,
    "fiftyone": write_fiftyone,
}
"""Functions that write an audit for a tool, by the tool's name: (audit, path, options)."""

IMPORTS: Final[Mapping[str, Callable[[LabeledImages, Path], Decisions]]] = {
    "label-studio": read_label_studio,
    "cleanlab": read_cleanlab,
    "fiftyone": read_fiftyone,
}
"""Functions that read a tool's corrections of an audit, by the tool's name."""


def export_audit(audit: LabelAudit, tool: str, path: Path, **options: Any) -> None:
    """Writes an audit for a tool in `EXPORTS`, passing the options to its function.

    Raises:
      UserError: When there is no such tool, or the file cannot be written.
    """
    if tool not in EXPORTS:
        raise unknown_name("export", tool, EXPORTS)
    EXPORTS[tool](audit, path, **options)


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


def _score(audit: LabelAudit, place: int) -> float | None:
    score = float(audit.score[place])
    return None if np.isnan(score) else round(score, _DIGITS)


def _choices(identity: str, label: str) -> dict[str, Any]:
    return {
        "id": identity,
        "type": "choices",
        "from_name": _CHOICE,
        "to_name": _IMAGE,
        "value": {"choices": [label]},
    }


def _chosen(annotation: dict[str, Any]) -> Iterator[str]:
    """Yields the label of an annotation, if it has one."""
    parts = annotation.get("result")
    for part in parts if isinstance(parts, list) else ():
        value = part.get("value") if isinstance(part, dict) else None
        choices = value.get("choices") if isinstance(value, dict) else None
        if isinstance(choices, list) and len(choices) == 1:
            yield str(choices[0])


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix() if PurePosixPath(name).name else name


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


def _write_json(path: Path, value: Any) -> None:
    write_bytes_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
