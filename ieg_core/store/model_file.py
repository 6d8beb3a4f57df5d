# SPDX-License-Identifier: Apache-2.0
"""Metadata of an exported model, stored in a member of the `.keras` archive that Keras ignores.

It names the class of each logit and the expected input, so the model file is self-contained. It is
sealed (`ieg_core.store.seal`) and holds the SHA-256 of the other members.
"""

import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.host.archives import require_sane_size
from ieg_core.host.files import replacing
from ieg_core.store.layout import MODEL, TRIAL_EXAMPLE
from ieg_core.store.seal import DIGEST, parse_json, require_regular, seal, unseal

MEMBER = "ieg.json"
PREPROCESSINGS = ("square", "crop")
SCHEMA = 1
_MEMBERS = "members"


@dataclass(frozen=True)
class ModelFacts:
    """The facts needed to use a model.

    Attributes:
      class_names: The names of the C classes, in the order of the logits.
      image_shape: (height, width, channels) of the input; pixels are in 0 … 255.
      preprocessing: How an image file becomes an input: "square" takes the largest centered
        square, "crop" the centered 7/8 of it; both are resized to `image_shape`
        (ieg_core.data.image_folder.decode).
      trained_on: The data set.
      method: The method.
      network: The network.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    preprocessing: str = "square"
    trained_on: str = ""
    method: str = ""
    network: str = ""


def write_facts(path: Path, facts: ModelFacts) -> None:
    """Adds the facts and the digest of everything else to a `.keras` file."""
    with zipfile.ZipFile(path, "a") as archive:
        values = {"schema": SCHEMA, **asdict(facts), _MEMBERS: _digest(archive)}
        archive.writestr(MEMBER, json.dumps(seal(values), indent=1, ensure_ascii=False))


def add_digest(path: Path) -> bool:
    """Adds the digest to the model of an earlier version; returns False if it cannot be read."""
    try:
        require_sane_size(path)
        with zipfile.ZipFile(path) as archive:
            values = parse_json(archive.read(MEMBER))
            if DIGEST in values:
                return False
            del values["schema"]
            facts = ModelFacts(**values)
            with replacing(path) as temporary:
                with zipfile.ZipFile(temporary, "w") as copy:
                    for info in archive.infolist():
                        if info.filename != MEMBER:
                            copy.writestr(info, archive.read(info))
                write_facts(temporary, facts)
    except Exception:  # damaged, or of another origin: its readers report it
        return False
    return True


def read_facts(path: Path) -> ModelFacts:
    """Reads the facts of an exported model, and checks the digest of the whole file.

    Raises:
      UserError: When the file does not exist, is not a `.keras` file, was not exported by this
        package, was altered since, or unpacks to much more than its size.
    """
    try:
        require_regular(os.stat(path).st_mode)
        require_sane_size(path)
        with zipfile.ZipFile(path) as archive:
            values = _checked(path, archive)
        if values.pop("schema") != SCHEMA:
            raise UserError(
                f"{path} has another format, expected schema {SCHEMA}: train it again with this "
                "version"
            )
        height, width, channels = map(int, values.pop("image_shape"))
        names = tuple(map(str, values.pop("class_names")))
        facts = ModelFacts(class_names=names, image_shape=(height, width, channels), **values)
        if facts.preprocessing not in PREPROCESSINGS:
            raise UserError(
                f"{path} has the preprocessing {facts.preprocessing!r}: expected "
                f"{' or '.join(PREPROCESSINGS)}; export it again"
            )
        return facts
    except OSError as error:
        raise UserError(
            f"cannot read the model {path} ({error.strerror}): expected the {MODEL} of a run"
        ) from error
    except UserError:
        raise
    # A damaged archive, or a foreign member of that name, can cause undocumented exceptions.
    except Exception as error:
        raise UserError(
            f"{path} was not exported by this package: expected the {MODEL} of a run, such as "
            f"{TRIAL_EXAMPLE}/{MODEL}"
        ) from error


def _checked(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    text = archive.read(MEMBER)
    try:
        values = unseal(parse_json(text))
        if values.pop(_MEMBERS) != _digest(archive):
            raise ValueError("it was altered: its sha256 does not match its content")
    except (ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is damaged ({error}): expected the {MODEL} that a training wrote; train the "
            "trial again"
        ) from error
    return values


def _digest(archive: zipfile.ZipFile) -> str:
    """Returns the SHA-256 of the names and contents of all members but our own."""
    summed = hashlib.sha256()
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        if info.filename != MEMBER:
            summed.update(f"{info.filename} {info.file_size}\n".encode())
            with archive.open(info) as member:
                while block := member.read(1 << 20):
                    summed.update(block)
    return summed.hexdigest()
