# SPDX-License-Identifier: Apache-2.0
"""What an exported model says of itself: a member of the `.keras` archive that Keras passes over.

So that one file is enough: which class a logit stands for, and what an image must look like.
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
    """What must be known to use a model.

    Attributes:
      class_names: C names, by logit.
      image_shape: (height, width, channels) of its input, pixels in 0 … 255.
      preprocessing: What is done to an image file to get there: "square", the largest centred
        square, or "crop", the centred 7/8 of it, brought to size
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
      UserError: No such file, no `.keras` file, or one that this package did not export.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            values: Any = json.loads(archive.read(MEMBER))
        if values.pop("schema") != SCHEMA:
            raise UserError(f"{path} was exported by another version of this program")
        height, width, channels = map(int, values.pop("image_shape"))
        names = tuple(map(str, values.pop("class_names")))
        facts = ModelFacts(class_names=names, image_shape=(height, width, channels), **values)
        if facts.preprocessing not in PREPROCESSINGS:
            raise UserError(
                f"{path} asks for the preprocessing {facts.preprocessing!r}: expected "
                f"{' or '.join(PREPROCESSINGS)}; export it again"
            )
        return facts
    except OSError as error:
        raise UserError(f"cannot read the model {path}: {error.strerror}") from error
    except UserError:
        raise
    # Which exceptions a damaged archive, or another's member of that name, can cause, is not said.
    except Exception as error:
        raise UserError(
            f"{path} is no model exported here: expected a {MODEL} of a run's folder, such as "
            f"runs/trials/…/{MODEL}"
        ) from error
