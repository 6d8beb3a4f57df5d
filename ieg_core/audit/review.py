# SPDX-License-Identifier: Apache-2.0
"""review.html: one file in which a person reviews the most suspicious labels.

The page is self-contained: style, script, and the images as JPEGs. Its content security policy
blocks everything else, so it works from a disk or an email attachment, and file and class names
cannot inject code. review.js renders it and saves decisions.csv (`ieg_core.audit.decisions`).
"""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from ieg_core.audit.feature_posterior import MISSING
from ieg_core.audit.label_audit import LabelAudit
from ieg_core.errors import printable
from ieg_core.host.templates import load_template

TEMPLATE: Final = Path(__file__).with_name("review.html.j2")
IMAGE_CHARACTERS: Final = 22_000_000
"""Budget for all images together, so that any page of 2,000 images stays below 25 MB."""
CHARACTERS_PER_IMAGE: Final = 4_000
"""Minimum budget per image, which also limits the number of images on a page."""
QUALITIES: Final = ((160, 88), (160, 78), (160, 66), (128, 66), (96, 60), (72, 50), (48, 40))
"""(longest side, JPEG quality), best first; an image gets the first that fits its budget."""
SMALL: Final = 64
"""Longest side of images that the page enlarges so much that JPEG artifacts would show."""
NUMBER_KEYS: Final = 10
"""Maximum number of classes with a key each; beyond that, the most likely are shown."""


def render(
    audit: LabelAudit,
    *,
    top: int,
    earlier: Sequence[tuple[str, str, str]] = (),
    remarks: Sequence[str] = (),
) -> str:
    """Renders the page on which a person reviews the labels of an audit.

    Args:
      audit: The audit.
      top: Maximum number of labels to show.
      earlier: Earlier decisions from `decisions.rows`; the page saves them again, including those
        about dropped images, which are no longer part of the audit.
      remarks: How far to trust the audit, a line each, shown with the help.

    Returns:
      A complete HTML document; deterministic for the same audit.
    """
    shown = audit.order[: max(0, min(top, IMAGE_CHARACTERS // CHARACTERS_PER_IMAGE))]
    content = _content(audit, shown, earlier)
    digest = hashlib.sha256(_to_json(content).encode()).hexdigest()
    style, script = (
        (Path(__file__).parent / name).read_text("utf-8") for name in ("review.css", "review.js")
    )
    return load_template(TEMPLATE).render(
        style=style,
        script=script,
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
        content=_to_json({"digest": digest, **content}),
        images=_to_json(_images(audit, shown)),
        shown=len(shown),
        judged=len(audit.order),
        remarks=[printable(remark) for remark in remarks],
    )


def _content(
    audit: LabelAudit, shown: np.ndarray, earlier: Sequence[tuple[str, str, str]]
) -> dict[str, Any]:
    """Returns the data for review.js other than images: columns in display order."""
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
    """Returns the images as Base64 JPEGs; [] if there are only features."""
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
      room: Maximum number of characters; if no version fits, the smallest is returned.
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
    """Encodes a value as JSON that is safe inside a script element: ASCII, no "<"."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _source_hash(text: str) -> str:
    """Returns the content security policy's source expression for an inline element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
