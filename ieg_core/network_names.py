# SPDX-License-Identifier: Apache-2.0
"""The names of the networks, readable without importing a deep-learning library.

A name says family and size:

* `resnet{D}`, D = 9n + 2: pre-activation bottleneck ResNet (`resnet11`, `resnet29`);
* `resnet{D}`, D = 6n + 2 and not 9n + 2: post-activation ResNet of basic blocks (`resnet32`);
* `preact8`: pre-activation basic blocks, one a stage, for 8x8 images;
* `wrn{D}-{K}`, D = 6n + 4: Wide ResNet of depth D and widening factor K (`wrn28-10`).

A depth that fits both ResNet rules (20, 38, 56, ...) is the bottleneck network. The depths of the
ImageNet networks (18, 34, 50, 101, 152) belong to those networks alone: `resnet50` never means the
small network of depth 6*8 + 2.
"""

import difflib
import re
from dataclasses import dataclass

from ieg_core.errors import UserError

EXAMPLES = (
    "preact8",
    "resnet11",
    "resnet29",
    "resnet32",
    "resnet44",
    "wrn16-8",
    "wrn28-10",
    "wrn40-2",
)
_RULE = "preact8, resnet{9n+2} (bottleneck), resnet{6n+2} (basic blocks) or wrn{6n+4}-{width}"
_IMAGENET_DEPTHS = frozenset({18, 34, 50, 101, 152})
# The deepest published one is resnet1202; a greater depth is a typing error.
_MAX_DEPTH = 1202
_MAX_WIDTH = 64


@dataclass(frozen=True)
class Network:
    """What a network's name says.

    Attributes:
      name: The name itself.
      family: "bottleneck", "basic", "preact8" or "wide".
      blocks_per_stage: Number of residual blocks in each of the three stages.
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
        if 8 <= depth <= _MAX_DEPTH and depth not in _IMAGENET_DEPTHS:
            if depth % 9 == 2:
                return Network(name, "bottleneck", depth // 9)
            if depth % 6 == 2:
                return Network(name, "basic", depth // 6)
    if match := re.fullmatch(r"wrn([1-9][0-9]{0,3})-([1-9][0-9]?)", name):
        depth, width = int(match[1]), int(match[2])
        if 10 <= depth <= _MAX_DEPTH and depth % 6 == 4 and width <= _MAX_WIDTH:
            return Network(name, "wide", depth // 6, width)
    near = difflib.get_close_matches(name, EXAMPLES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise UserError(f"unknown network {name!r}: {hint}expected {_RULE}, e.g. {', '.join(EXAMPLES)}")


def validate(name: str) -> None:
    """Raises UserError, with the nearest names, unless a network has this name."""
    parse(name)
