# SPDX-License-Identifier: Apache-2.0
"""The names of features, as FEATURES, `--features` and `network` of the audit take them.

A name is one of

* `efficientnet-lite0`, `efficientnet-lite2`: pre-trained networks that come with this package;
* `path/to/features.npy` (`.npz`, `.parquet`): precomputed features, one row per example;
* `path/to/network.keras`: a Keras model of the user's, from pixels in [0, 255] to features;
* `path/to/network.onnx`: an ONNX model, see `ieg_core.features.network`;
* `keras.applications:NAME`: a network of Keras, whose ImageNet weights Keras downloads;

or several of these joined by `+` or `,`, whose features are concatenated.
"""

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ieg_core.errors import UserError

BUILT_IN: Final = ("efficientnet-lite0", "efficientnet-lite2")
"""Pre-trained networks: a head on their features is trained, they themselves are not."""
SIZE: Final = 160
"""Side in pixels of the images that networks without a fixed input size receive."""
FILES: Final = (".npy", ".npz", ".parquet")
APPLICATIONS: Final = "keras.applications:"
_APPLICATION: Final = f"{APPLICATIONS}NAME"
EXPECTED: Final = (
    f"{', '.join(BUILT_IN)}, a file of features ({', '.join(FILES)}), a network (.keras, .onnx) or "
    f"{_APPLICATION}, several joined by +"
)


@dataclass(frozen=True)
class FeatureSource:
    """One source of features.

    Attributes:
      name: Its name.
      kind: "built-in", "file", "keras", "onnx" or "application".
    """

    name: str
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether it computes features of new images."""
        return self.kind != "file"


def parse(text: str | Sequence[str]) -> tuple[FeatureSource, ...]:
    """Reads the names of features.

    Args:
      text: Names joined by "+" or ",", or several such texts.

    Returns:
      The sources, in order.

    Raises:
      UserError: When a name is unknown or repeated; the message lists near names.
    """
    texts = [text] if isinstance(text, str) else text
    names = [name.strip() for each in texts for name in re.split("[+,]", each)]
    sources = tuple(FeatureSource(name, _kind(name)) for name in names)
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"received the features {repeated} twice: expected each once")
    return sources


def joined(sources: Sequence[FeatureSource]) -> str:
    """Returns the names of sources as one text, which `parse` reads."""
    return "+".join(source.name for source in sources)


def source_digest(text: str) -> str:
    """Returns a digest of the files among sources, which a name alone does not identify.

    Args:
      text: Names joined by "+" or ",".

    Returns:
      SHA-256, hexadecimal; "" without files.

    Raises:
      UserError: When a file cannot be read.
    """
    files = [s.name for s in parse(text) if s.kind in ("file", "keras", "onnx")]
    if not files:
        return ""
    return hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest()


def file_digest(name: str) -> str:
    """Returns the SHA-256 of a file, hexadecimal.

    Raises:
      UserError: When it cannot be read.
    """
    try:
        with Path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"cannot read the features {name} ({error.strerror}): expected {EXPECTED}"
        ) from error


def _kind(name: str) -> str:
    if name in BUILT_IN:
        return "built-in"
    suffix = Path(name).suffix.lower()
    if suffix in FILES:
        return "file"
    if suffix in (".keras", ".onnx"):
        return suffix[1:]
    if re.fullmatch(rf"{re.escape(APPLICATIONS)}\w+", name):
        return "application"
    near = difflib.get_close_matches(name, (*BUILT_IN, _APPLICATION), n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise UserError(f"unknown features {name!r}: {hint}expected {EXPECTED}")
