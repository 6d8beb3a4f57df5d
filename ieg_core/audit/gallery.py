# SPDX-License-Identifier: Apache-2.0
"""audit.html: a self-contained page with the most suspicious examples."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ieg_core.audit.findings import Audit
from ieg_core.errors import printable
from ieg_core.host.templates import load_template
from ieg_core.store.records import AuditRecord

TEMPLATE = Path(__file__).with_name("audit.html.j2")
THUMBNAIL_PIXELS = 72
# The page stays below 5 MB for any number and size of images.
IMAGE_CHARACTERS = 4_000_000
MARKUP_CHARACTERS = 400
MATRIX_CLASSES = 12
CONFUSIONS = 30


@dataclass(frozen=True)
class Example:
    """One suspicious example; its name is the path of its file or, without a file, its number."""

    name: str
    given: str
    suggested: str
    score: str
    image: str
    truth: str


@dataclass(frozen=True)
class Confusion:
    """How often one class is labeled as another, as text."""

    true: str
    observed: str
    estimated: str
    known: str


def render(audit: Audit, summary: AuditRecord, top: int) -> str:
    """Renders the page of an audit.

    Args:
      audit: The audit.
      summary: Its summary.
      top: The most examples to show.

    Returns:
      A complete HTML document; the same audit gives the same bytes.
    """
    small = audit.label_set.num_classes <= MATRIX_CLASSES
    height, width, _ = audit.label_set.image_shape
    return load_template(TEMPLATE).render(
        summary=summary,
        share=_percent(summary.flagged / max(summary.examples, 1)),
        measures=_measures(summary),
        examples=_examples(audit, top),
        pixelated=max(height, width) < THUMBNAIL_PIXELS,
        matrices=_matrices(summary) if small else [],
        confusions=[] if small else _confusions(summary),
    )


def thumbnail(image: np.ndarray) -> str:
    """Returns an image, uint8 [H, W, 1 or 3], as a small PNG in a data URI."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _examples(audit: Audit, top: int) -> list[Example]:
    """Returns the flagged examples, most suspicious first, as far as the page has room."""
    names = audit.label_set.class_names
    examples: list[Example] = []
    room = IMAGE_CHARACTERS
    for place in np.flatnonzero(audit.flagged)[:top].tolist():
        uri = thumbnail(np.asarray(audit.source.train_images(audit.ids[place : place + 1])[0]))
        name = _name(audit, int(audit.ids[place]))
        room -= len(uri) + 2 * len(name.encode()) + MARKUP_CHARACTERS
        if room < 0:
            break
        examples.append(
            Example(
                name=name,
                given=names[audit.given[place]],
                suggested=names[audit.scores.suggested[place]],
                score=f"{audit.scores.score[place]:.2f}",
                image=uri,
                truth=_truth(audit, place),
            )
        )
    return examples


def _name(audit: Audit, index: int) -> str:
    paths = audit.source.paths
    return printable(paths[index]) if paths else f"#{index}"


def _truth(audit: Audit, place: int) -> str:
    if audit.clean is None:
        return ""
    clean = audit.clean[place]
    if clean == audit.scores.suggested[place]:
        return "confirmed"
    if clean == audit.given[place]:
        return "label is correct"
    return f"is {audit.label_set.class_names[clean]}"


def _measures(summary: AuditRecord) -> list[tuple[str, str]]:
    if not summary.clean_labels_known:
        return []
    named = {
        "wrong labels": f"{summary.wrong:,} of {summary.examples:,}",
        "average precision": _three(summary.average_precision),
        "AUROC": _three(summary.auroc),
        "precision": _percent(summary.precision),
        "recall": _percent(summary.recall),
        "correct suggestions": _percent(summary.suggested_right),
    }
    return list(named.items())


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _matrices(summary: AuditRecord) -> list[tuple[str, list[tuple[str, list[Any]]]]]:
    """Lays out matrices as (title, rows of (class, cells of (text, share)))."""
    names = summary.class_names
    matrices = {"estimated": summary.transition_estimated, "true": summary.transition_true}
    return [
        (
            title,
            [
                (
                    name,
                    [
                        (f"{100 * value:.0f}" if value >= 0.005 else "", round(value, 2))
                        for value in row
                    ],
                )
                for name, row in zip(names, matrix, strict=True)
            ],
        )
        for title, matrix in matrices.items()
        if matrix
    ]


def _confusions(summary: AuditRecord) -> list[Confusion]:
    """Lists the most frequent confusions, for more classes than a readable matrix has."""
    names = summary.class_names
    estimated = np.array(summary.transition_estimated)
    np.fill_diagonal(estimated, 0)
    known = summary.transition_true
    lines = []
    for place in np.argsort(-estimated, axis=None, kind="stable")[:CONFUSIONS]:
        true, observed = (int(index) for index in np.unravel_index(place, estimated.shape))
        if estimated[true, observed] > 0:
            share = known[true][observed] if known else None
            text = _percent(float(estimated[true, observed]))
            lines.append(Confusion(names[true], names[observed], text, _percent(share)))
    return lines
