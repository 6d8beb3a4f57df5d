# SPDX-License-Identifier: Apache-2.0
"""Given labels, as opposed to drawn ones: human labels (CIFAR-N) or those of a file."""

from dataclasses import dataclass

from ieg_core.data.base import Labels, Source

NOT_LISTED = -1


@dataclass(frozen=True)
class GivenLabels:
    """One label for each training example of a base data set.

    Attributes:
      labels: int32 [N] in the order of the base data, NOT_LISTED for examples without a label.
      file: The name of the user's file; "" for a published set.
      sha256: Digest of that file, hexadecimal; "" for a published set.
    """

    labels: Labels
    file: str = ""
    sha256: str = ""


def data_tag(source: Source) -> str:
    """Returns a short name of a base data set, by which a label file states its data."""
    return f"{source.base}:{source.digest[:12]}"
