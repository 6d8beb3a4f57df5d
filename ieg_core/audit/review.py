# SPDX-License-Identifier: Apache-2.0
"""review.html: one file in which a person decides about the most suspicious labels.

Everything is inside the page: style, script, and the images as JPEGs. Its content security policy
allows nothing else, so that it works from a disk or an e-mail alike, and a name can do no harm.
review.js draws it; decisions leave it as a decisions.csv (`ieg_core.audit.decisions`).
"""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
from PIL import Image

from ieg_core.audit.feature_posterior import MISSING
from ieg_core.audit.label_audit import LabelAudit

TEMPLATE: Final = "review.html.j2"
LONGEST_SIDE: Final = 160
IMAGE_CHARACTERS: Final = 22_000_000
"""Of all images together, so that a page of 2,000 images stays below 25 MB, whatever they show."""
CHARACTERS_PER_IMAGE: Final = 4_000
"""What every image may have at least; a page shows no more images than have room for that."""
QUALITIES: Final = ((160, 88), (160, 78), (160, 66), (128, 66), (96, 60), (72, 50), (48, 40))
"""(longest side, JPEG quality): the first at which an image fits its share of the room."""
SMALL: Final = 64
"""Longest side up to which an image is enlarged so much that a coarse JPEG would show."""
NUMBER_KEYS: Final = 10
"""Up to as many classes have a key each; of more, the likeliest are shown."""


def render(audit: LabelAudit, *, top: int, earlier: Sequence[tuple[str, str, str]] = ()) -> str:
    """Renders the page on which a person reviews the labels of an audit.

    Args:
      audit: The audit.
      top: The most labels to show.
      earlier: What was decided before, as `decisions.rows` gives it; the file that the page saves
        repeats it, dropped images included, which the audit does not know any more.

    Returns:
      A complete HTML document; the same audit gives the same text.
    """
    shown = audit.order[: max(0, min(top, IMAGE_CHARACTERS // CHARACTERS_PER_IMAGE))]
    content = _content(audit, shown, earlier)
    digest = hashlib.sha256(_to_json(content).encode()).hexdigest()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (
        (Path(__file__).parent / name).read_text("utf-8") for name in ("review.css", "review.js")
    )
    return environment.get_template(TEMPLATE).render(
        style=style,
        script=script,
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
        content=_to_json({"digest": digest, **content}),
        images=_to_json(_images(audit, shown)),
        shown=len(shown),
        judged=len(audit.order),
    )


def _content(
    audit: LabelAudit, shown: np.ndarray, earlier: Sequence[tuple[str, str, str]]
) -> dict[str, Any]:
    """Collects what review.js needs besides the images, column by column, in the order shown."""
    images = audit.images
    count = min(len(images.class_names), NUMBER_KEYS)
    likely = np.argsort(-audit.evidence.q[shown], axis=1, kind="stable")[:, :count]
    several = images.labels.shape[1] > 1
    return {
        "classes": images.class_names,
        "judged": len(audit.order),
        "names": [images.names[place] for place in shown.tolist()],
        "given": audit.given[shown].tolist(),
        "suggested": audit.suggested[shown].tolist(),
        "score": [round(score, 4) for score in audit.score[shown].tolist()],
        "likely": likely.tolist(),
        "probability": [
            [round(value, 4) for value in audit.evidence.q[place, row].astype(float).tolist()]
            for place, row in zip(shown.tolist(), likely, strict=True)
        ],
        "votes": [
            [label for label in row if label != MISSING] for row in images.labels[shown].tolist()
        ]
        if several
        else [],
        "earlier": list(earlier),
    }


def _images(audit: LabelAudit, shown: np.ndarray) -> list[str]:
    """Returns the images as JPEGs in Base64, [] if there are only features."""
    if audit.images.read is None:
        return []
    encoded, room = [], IMAGE_CHARACTERS
    for number, place in enumerate(shown.tolist()):
        image = thumbnail(audit.images.read(place), room // (len(shown) - number))
        room -= len(image)
        encoded.append(image)
    return encoded


def thumbnail(image: np.ndarray, room: int) -> str:
    """Returns an image as a small JPEG in Base64.

    Args:
      image: uint8 [H, W, 1 or 3].
      room: Characters that it may have; the smallest version is returned if none fits.
    """
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    text = ""
    for side, quality in QUALITIES:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        if max(picture.size) <= SMALL:
            picture.save(buffer, "JPEG", quality=max(quality, 95), subsampling=0, optimize=True)
        else:
            picture.save(buffer, "JPEG", quality=quality, optimize=True)
        text = base64.b64encode(buffer.getvalue()).decode()
        if len(text) <= room:
            break
    return text


def _to_json(value: Any) -> str:
    """Encodes a value as JSON that can stand in a script element: ASCII, no "<"."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _source_hash(text: str) -> str:
    """Returns an inline element's source expression of a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
