# SPDX-License-Identifier: Apache-2.0
"""Metadata of an exported model, stored in a member of the `.keras` archive that Keras ignores.

It names the class of each logit and the expected input, so the model file is self-contained.
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
        raise UserError(f"cannot read the model {path}: {error.strerror}") from error
    except UserError:
        raise
    # A damaged archive, or a foreign member of that name, can cause undocumented exceptions.
    except Exception as error:
        raise UserError(
            f"{path} was not exported by this package: expected the {MODEL} of a run, such as "
            f"runs/trials/…/{MODEL}"
        ) from error
