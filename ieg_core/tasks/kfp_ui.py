# SPDX-License-Identifier: Apache-2.0
"""Artifacts for the KFP UI, within the limits of the UI and the cluster.

- NaN or infinity in metadata fails a task after it has succeeded.
- The UI truncates Markdown after 400,000 characters, even in the middle of a table.
- The UI fetches the confusion matrices of all trials at each refresh: about 11 MB for 100 trials of
  100 classes.
- The output of a task becomes one command-line argument of the next, at most 128 KiB.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ieg_core.report.trials import FINISHED, Row, Trial
from ieg_core.store.layout import REPORT_TABLE

MARKDOWN_CHARACTERS = 390_000
FAILURES_CHARACTERS = 4000
MAX_CLASSES = 20


def metrics(row: Row) -> dict[str, float]:
    """Returns the finite numbers of a trial's result; empty if it has not finished."""
    return finite_numbers(row) if row["status"] == FINISHED else {}


def finite_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the values that are finite numbers; a bool is not a number."""
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def confusion(trial: Trial) -> tuple[list[str], list[list[float]]]:
    """Returns a trial's confusion matrix for the UI, which requires distinct class names.

    Above `MAX_CLASSES` these are the classes of the pairs that are confused most often, and all
    others as one; the report has the whole matrix.

    Returns:
      C distinct names; counts [C, C], rows = true class. Both are empty if there is no matrix.
    """
    if trial.confusion is None:
        return [], []
    names = list(trial.class_names)
    if len(set(names)) < len(names):
        names = [f"{index} {name}" for index, name in enumerate(names)]
    counts = np.asarray(trial.confusion, dtype=np.float64)
    if len(names) > MAX_CLASSES:
        names, counts = _most_confused(names, counts)
    return names, counts.tolist()


def _most_confused(
    names: Sequence[str], counts: NDArray[np.float64]
) -> tuple[list[str], NDArray[np.float64]]:
    """Merges all classes into one but those of the most frequent confusions."""
    errors = counts * (1 - np.eye(len(names)))
    order = np.argsort(-errors, axis=None, kind="stable")
    kept: list[int] = []
    for pair in zip(*np.unravel_index(order, errors.shape), strict=True):
        new = sorted({int(index) for index in pair} - set(kept))
        if len(kept) + len(new) > MAX_CLASSES - 1:
            break
        kept += new
    kept.sort()
    others = [index for index in range(len(names)) if index not in kept]
    merge = np.zeros((len(kept) + 1, len(names)))
    merge[range(len(kept)), kept] = 1
    merge[-1, others] = 1
    return [*(names[index] for index in kept), f"{len(others)} others"], merge @ counts @ merge.T


def short_markdown(text: str) -> str:
    """Truncates a document after a line if the UI cannot show all of it."""
    if len(text) <= MARKDOWN_CHARACTERS:
        return text
    kept = text[:MARKDOWN_CHARACTERS].rpartition("\n")[0]
    return f"{kept}\n\nTruncated; {REPORT_TABLE} has all rows.\n"


def failures(rows: Sequence[Row], trials: Sequence[str]) -> str:
    """Lists the trials of a run that did not finish, with reasons; "" if all finished.

    Args:
      rows: The rows of the sweep's report.
      trials: The trials of this run.
    """
    unfinished = [
        f"{row['trial']}: {row['reason']}"
        for row in rows
        if row["status"] != FINISHED and row["trial"] in trials
    ]
    text = "; ".join(unfinished)
    if len(text) <= FAILURES_CHARACTERS:
        return text
    return f"{len(unfinished)} trials: {text[:FAILURES_CHARACTERS]} …"
