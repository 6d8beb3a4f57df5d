# SPDX-License-Identifier: Apache-2.0
"""Metadata of an exported model, in a member of the `.keras` archive that Keras ignores.

With it, one file is enough to use a model: it has the class names and the format of the images.
"""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.store.layout import MODEL

MEMBER = "ieg.json"
PREPROCESSINGS = ("square", "crop")
SCHEMA = 1


@dataclass(frozen=True)
class ModelFacts:
    """The metadata of an exported model.

    Attributes:
      class_names: C names, in the order of the logits.
      image_shape: (height, width, channels) of its input, pixels in [0, 255].
      preprocessing: Which part of an image is resized to `image_shape`: "square", the largest
        centered square, or "crop", the centered 7/8 of that square
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
    """Adds the facts to a `.keras` file."""
    with zipfile.ZipFile(path, "a") as archive:
        text = json.dumps({"schema": SCHEMA, **asdict(facts)}, indent=1, ensure_ascii=False)
        archive.writestr(MEMBER, text)


def read_facts(path: Path) -> ModelFacts:
    """Reads the facts of an exported model.

    Raises:
      UserError: When the file does not exist, is not a `.keras` file, or was not exported by this
        package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            values: Any = json.loads(archive.read(MEMBER))
        if values.pop("schema") != SCHEMA:
            raise UserError(f"{path} was exported by another version of ieg: export it again")
        height, width, channels = map(int, values.pop("image_shape"))
        names = tuple(map(str, values.pop("class_names")))
        facts = ModelFacts(class_names=names, image_shape=(height, width, channels), **values)
        if facts.preprocessing not in PREPROCESSINGS:
            raise UserError(
                f"{path} requires the preprocessing {facts.preprocessing!r}: expected "
                f"{' or '.join(PREPROCESSINGS)}; export it again"
            )
        return facts
    except OSError as error:
        raise UserError(f"cannot read the model {path}: {error.strerror}") from error
    except UserError:
        raise
    # zipfile and json do not document every exception that a damaged archive can raise.
    except Exception as error:
        raise UserError(
            f"{path} was not exported by ieg: expected the {MODEL} of a run's folder, such as "
            f"runs/trials/…/{MODEL}"
        ) from error
