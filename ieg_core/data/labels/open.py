# SPDX-License-Identifier: Apache-2.0
"""Opens the labels that a data set is given: those of people (CIFAR-N) or of a file."""

from pathlib import Path

from ieg_core.data.base import Source
from ieg_core.data.labels.cifar_n import human_labels
from ieg_core.data.labels.given import GivenLabels
from ieg_core.data.labels.label_file import read_labels
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import LABELS, DatasetSpec


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
        return read_labels(Path(labels_file), source)
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
