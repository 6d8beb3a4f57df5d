# SPDX-License-Identifier: Apache-2.0
"""Opens the given labels of a data set: human labels (CIFAR-N) or those of a file."""

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
    """Opens the given labels of a data set.

    Args:
      spec: The data set.
      source: The base data, for their order, class names and digest.
      data_dir: The directory that has CIFAR-N's files in cifar-n/ or as TFDS data sets.
      labels_file: The user's label file, for `<base>_labels`.

    Returns:
      The labels, or None for a data set whose labels are drawn.

    Raises:
      UserError: When a label file is missing, is given for a data set that takes none, or is not a
        label file for these data.
    """
    check_labels_file(spec, labels_file)
    if spec.given is None:
        return None
    if spec.given == LABELS:
        return read_labels(Path(labels_file), source)
    return GivenLabels(human_labels(spec, source, data_dir))


def check_labels_file(spec: DatasetSpec, labels_file: str) -> None:
    """Checks that a label file is given if and only if the data set needs one.

    Args:
      spec: The data set.
      labels_file: The path of the label file; "" for none.

    Raises:
      UserError: When a label file is missing, or given for a data set that takes none.
    """
    if spec.given == LABELS and not labels_file:
        raise UserError(
            f"{spec} received no label file: expected a CSV or Parquet file with the columns index "
            "and label; pass LABELS=path (ieg: --labels)"
        )
    if spec.given != LABELS and labels_file:
        raise UserError(
            f"received LABELS={labels_file}, but {spec} takes no label file: set "
            f"DATASET={spec.base}_labels, or leave LABELS out"
        )
