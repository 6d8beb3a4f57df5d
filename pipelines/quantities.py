# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' quantities of CPU and memory, as far as KFP takes them."""

import re

from ieg_core.errors import UserError

CPU = re.compile(r"((?:\d+\.)?\d+)(m?)")
MEMORY = re.compile(r"(\d+)(?:([EPTGMK])(i?))?")
POWERS = "KMGTPE"


def cores(text: str, name: str) -> float:
    """Returns a number of cores, such as "2" or "500m".

    Raises:
      UserError: It is none; it says `name`.
    """
    found = CPU.fullmatch(text)
    if not found:
        raise UserError(f"{name} must be cores such as '2' or '500m', got {text!r}")
    return float(found[1]) / (1000 if found[2] else 1)


def size(text: str, name: str) -> int:
    """Returns an amount of memory in bytes, such as "4Gi".

    Raises:
      UserError: It is none; it says `name`.
    """
    found = MEMORY.fullmatch(text)
    if not found:
        raise UserError(f"{name} must be a size such as 4Gi, got {text!r}")
    power = POWERS.index(found[2]) + 1 if found[2] else 0
    return int(found[1]) * (1024 if found[3] else 1000) ** power
