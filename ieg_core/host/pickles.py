# SPDX-License-Identifier: Apache-2.0
"""Loads a pickle with a restricted unpickler, within bounds.

Pickle's own reader trusts the sizes in a file: ten bytes can name the four billionth entry of its
memo, for which it allocates 4 GiB, and containers nested a million deep overflow the stack when
they are hashed. So the operations are counted before they are run.
"""

import pickle
import pickletools
from io import BytesIO
from typing import Any, Final

_MOST_OBJECTS: Final = 20_000
_CONTAINERS: Final = frozenset(
    ("EMPTY_LIST", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT",
     "DICT", "EMPTY_SET", "FROZENSET")
)  # fmt: skip
"""The operations that make an object that can hold others."""


def load_pickle(unpickler: type[pickle.Unpickler], file: BytesIO) -> Any:
    """Reads the next pickle of a file.

    Args:
      unpickler: Resolves names; it must admit harmless ones only.
      file: The file, which is left behind the pickle.

    Raises:
      ValueError: When the pickle is damaged, refers to a memo entry beyond the number of its
        operations, or makes more than 20,000 objects that can hold others.
    """
    start, objects = file.tell(), 0
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if "PUT" in operation.name and int(argument or 0) > count:
            raise ValueError(f"it refers to entry {argument} of its memo, beyond its size")
        objects += operation.name in _CONTAINERS
        if objects > _MOST_OBJECTS:
            raise ValueError(f"it makes more than {_MOST_OBJECTS:,} objects")
    file.seek(start)
    return unpickler(file).load()
