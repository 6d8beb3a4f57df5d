# SPDX-License-Identifier: Apache-2.0
"""The names of the networks, readable without importing a deep-learning library.

A name says family and size:

* `resnet{D}`, D = 9n + 2: pre-activation bottleneck ResNet (`resnet11`, `resnet29`);
* `resnet{D}`, D = 6n + 2 and not 9n + 2: post-activation ResNet of basic blocks (`resnet32`);
* `preact8`: pre-activation basic blocks, one a stage, for 8x8 images;
* `wrn{D}-{K}`, D = 6n + 4: Wide ResNet of depth D and widening factor K (`wrn28-10`);
* `resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152`: the ImageNet networks;
* `package.module:function`: one's own, from a function that builds it;
* `path/to/network.keras`: one's own, from a file that `keras.Model.save` wrote.

A depth that fits both ResNet rules (20, 38, 56, ...) is the bottleneck network. The depths of the
ImageNet networks (18, 34, 50, 101, 152) belong to those networks alone: `resnet50` never means the
small network of depth 6*8 + 2.
"""

import difflib
import hashlib
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ieg_core.errors import UserError

EXAMPLES = (
    "preact8",
    "resnet11",
    "resnet18",
    "resnet29",
    "resnet32",
    "resnet44",
    "resnet50",
    "wrn16-8",
    "wrn28-10",
    "wrn40-2",
)
_RULE = (
    "preact8, resnet{9n+2} (bottleneck), resnet{6n+2} (basic blocks), wrn{6n+4}-{width}, one of "
    "ImageNet's, your own package.module:function, or a file ending in .keras"
)
_IMAGENET_DEPTHS = frozenset({18, 34, 50, 101, 152})
# The deepest published one is resnet1202; a greater depth is a typing error.
_MAX_DEPTH = 1202
_MAX_WIDTH = 64


@dataclass(frozen=True)
class Network:
    """What a network's name says.

    Attributes:
      name: The name itself.
      family: "bottleneck", "basic", "preact8", "wide" or "imagenet"; "function" or "file" for
        one's own.
      blocks_per_stage: Number of residual blocks in each of the three stages; the depth of one of
        ImageNet's; 0 for one's own.
      width: Factor on the base number of filters; 1 outside the family "wide".
    """

    name: str
    family: str
    blocks_per_stage: int
    width: int = 1


def parse(name: str) -> Network:
    """Reads a network's name.

    Args:
      name: For example "resnet29" or "wrn28-10".

    Returns:
      Family and size.

    Raises:
      UserError: If no network has that name; the message offers the nearest names and the rule.
    """
    if name == "preact8":
        return Network(name, "preact8", 1)
    if match := re.fullmatch(r"resnet([1-9][0-9]{0,3})", name):
        depth = int(match[1])
        if depth in _IMAGENET_DEPTHS:
            return Network(name, "imagenet", depth)
        if 8 <= depth <= _MAX_DEPTH:
            if depth % 9 == 2:
                return Network(name, "bottleneck", depth // 9)
            if depth % 6 == 2:
                return Network(name, "basic", depth // 6)
    if match := re.fullmatch(r"wrn([1-9][0-9]{0,3})-([1-9][0-9]?)", name):
        depth, width = int(match[1]), int(match[2])
        if 10 <= depth <= _MAX_DEPTH and depth % 6 == 4 and width <= _MAX_WIDTH:
            return Network(name, "wide", depth // 6, width)
    if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        return Network(name, "function", 0)
    if name.endswith(".keras"):
        return Network(name, "file", 0)
    near = difflib.get_close_matches(name, EXAMPLES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise UserError(f"unknown network {name!r}: {hint}expected {_RULE}, e.g. {', '.join(EXAMPLES)}")


def source_digest(name: str) -> str:
    """Returns a digest of what one's own network is made from: its module's source, or its file.

    The network itself is not built, and its module not imported (the packages above it are).

    Args:
      name: A network's name.

    Returns:
      SHA-256, hexadecimal; "" for a network of ours, which the code's version covers.

    Raises:
      UserError: There is no such module or file.
    """
    family = parse(name).family
    if family not in ("function", "file"):
        return ""
    path = Path(name) if family == "file" else module_file(name)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"cannot read the network {name!r} ({path}: {error.strerror}): expected "
            + ("a file that model.save wrote" if family == "file" else "a Python module")
        ) from error


def module_file(name: str) -> Path:
    """Returns the file of the module in `package.module:function`, seen from the current folder."""
    module = name.partition(":")[0]
    add_current_folder()
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise UserError(f"no module {module!r} for the network {name!r}: {error}") from error
    if found is None or not found.origin or not os.path.isfile(found.origin):
        raise UserError(
            f"no module {module!r} for the network {name!r}: expected a file such as "
            f"{module.replace('.', '/')}.py in the current folder, or an installed package"
        )
    return Path(found.origin)


def add_current_folder() -> None:
    """Lets modules of the current folder be imported, as `python -m` does."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def validate(name: str) -> None:
    """Raises UserError, with the nearest names, unless a network can have this name."""
    parse(name)
