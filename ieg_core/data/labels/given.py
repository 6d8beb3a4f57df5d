# SPDX-License-Identifier: Apache-2.0
"""Labels that are given instead of drawn: people's (CIFAR-N) or a file's."""

from dataclasses import dataclass

from ieg_core.data.base import Labels, Source

NOT_LISTED = -1


@dataclass(frozen=True)
class GivenLabels:
    """One label for each training example of a base data set.

    Attributes:
      labels: int32 [N] in the base's order, NOT_LISTED where there is none.
      file: The name of the user's file; "" for a published set.
      sha256: Digest of that file, hexadecimal; "" for a published set.
    """

    labels: Labels
    file: str = ""
    sha256: str = ""


def data_tag(source: Source) -> str:
    """Names a base data set in few letters, so that a label file says which data it is for."""
    return f"{source.base}:{source.digest[:12]}"
