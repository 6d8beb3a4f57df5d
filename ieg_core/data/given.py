# SPDX-License-Identifier: Apache-2.0
"""Labels that are given instead of drawn: people's (CIFAR-N) or a file's."""

from dataclasses import dataclass
from pathlib import Path

from ieg_core.data.source import Labels, Source
from ieg_core.errors import UserError
from ieg_core.spec import LABELS, DatasetSpec

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


def open_given(
    spec: DatasetSpec, source: Source, data_dir: Path, labels_file: str = ""
) -> GivenLabels | None:
    """Opens the labels that a data set is given.

    Args:
      spec: The data set.
      source: The base data, for their order, class names and digest.
      data_dir: Where CIFAR-N's files lie, in cifar-n/ or as TFDS data sets.
      labels_file: The user's file, for `<base>_labels`.

    Returns:
      The labels, or None for a data set whose labels are drawn.

    Raises:
      UserError: A file is missing where one is needed or given where none is, or is no label file
        of these data.
    """
    check_labels_file(spec, labels_file)
    if spec.given is None:
        return None
    if spec.given == LABELS:
        from ieg_core.data.labels import read_labels

        return read_labels(Path(labels_file), source)
    from ieg_core.data.human import human_labels

    return GivenLabels(human_labels(spec, source, data_dir))


def check_labels_file(spec: DatasetSpec, labels_file: str) -> None:
    """Raises UserError unless a label file is given exactly where the data set needs one."""
    if spec.given == LABELS and not labels_file:
        raise UserError(
            f"{spec} needs a file of labels: give LABELS=path (ieg: --labels), a CSV or Parquet "
            "file with the columns index and label"
        )
    if spec.given != LABELS and labels_file:
        raise UserError(
            f"LABELS={labels_file} was given, but {spec} takes no label file: ask for "
            f"DATASET={spec.base}_labels, or leave LABELS out"
        )
