# SPDX-License-Identifier: Apache-2.0
"""Exports audits to other tools; `ieg_core.audit.corrections` reads what people corrected there."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from ieg_core.audit.corrections import IMAGE, fiftyone_id
from ieg_core.audit.images import MISSING
from ieg_core.audit.label_audit import LabelAudit
from ieg_core.data.tables import SUFFIXES, to_csv, to_parquet
from ieg_core.errors import UserError, unknown_name
from ieg_core.host.files import write_bytes_atomic

LABEL_STUDIO: Final = "label-studio"
_CHOICE: Final = "choice"
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
      UserError: When the name ends in .xml, or a file cannot be written.
    """
    if path.suffix.lower() == ".xml":
        raise UserError(
            f"cannot write tasks to {path}: expected a name ending in .json, since the .xml file "
            "beside it holds the configuration"
        )
    names = audit.images.class_names
    tasks = []
    for place in audit.all_places.tolist():
        given, suggested = int(audit.given[place]), int(audit.suggested[place])
        name = audit.images.names[place]
        task: dict[str, Any] = {
            "data": {
                IMAGE: prefix + quote(name) if prefix else name,
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
        f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}"/>\n'
        f'  <Choices name="{_CHOICE}" toName="{IMAGE}" choice="single">\n{choices}'
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
        key = fiftyone_id(audit.images.names[place])
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


EXPORTS: Final[Mapping[str, Callable[..., None]]] = {
    LABEL_STUDIO: write_label_studio,
    "cleanlab": write_cleanlab,
    "fiftyone": write_fiftyone,
}
"""Functions that write an audit for a tool, by the tool's name: (audit, path, options)."""


def export_audit(audit: LabelAudit, tool: str, path: Path, **options: Any) -> None:
    """Writes an audit for a tool in `EXPORTS`, passing the options to its function.

    Raises:
      UserError: When there is no such tool, or the file cannot be written.
    """
    if tool not in EXPORTS:
        raise unknown_name("export", tool, EXPORTS)
    EXPORTS[tool](audit, path, **options)


def _score(audit: LabelAudit, place: int) -> float | None:
    score = float(audit.score[place])
    return None if np.isnan(score) else round(score, _DIGITS)


def _choices(identity: str, label: str) -> dict[str, Any]:
    return {
        "id": identity,
        "type": "choices",
        "from_name": _CHOICE,
        "to_name": IMAGE,
        "value": {"choices": [label]},
    }


def _write_json(path: Path, value: Any) -> None:
    write_bytes_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
