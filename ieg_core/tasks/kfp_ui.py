# SPDX-License-Identifier: Apache-2.0
"""What the KFP UI shows of a run, within the limits of what it and the cluster can carry.

- Metadata with a NaN or an infinity in them fail a task after it has succeeded.
- The UI cuts Markdown at 400,000 characters, in the middle of a table.
- What a task returns becomes one command-line argument of the next, 128 KiB at most.
"""

import math
from collections.abc import Sequence

from ieg_core.report.trials import FINISHED, Row, Trial

MARKDOWN_CHARACTERS = 390_000
FAILURES_CHARACTERS = 4000


def metrics(row: Row) -> dict[str, float]:
    """Returns the finite numbers of a trial's result; none if it has not finished."""
    if row["status"] != FINISHED:
        return {}
    return {
        key: value
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def confusion(trial: Trial) -> tuple[list[str], list[list[float]]]:
    """Returns a trial's confusion matrix for the UI, which tells classes apart by their names.

    Returns:
      C different names; counts [C, C], rows = true class. Both empty if there is no matrix.
    """
    if trial.confusion is None:
        return [], []
    names = list(trial.class_names)
    if len(set(names)) < len(names):
        names = [f"{index} {name}" for index, name in enumerate(names)]
    return names, [[float(count) for count in row] for row in trial.confusion]


def short_markdown(text: str) -> str:
    """Returns a document that the UI shows whole: cut after a line, and saying so, if need be."""
    if len(text) <= MARKDOWN_CHARACTERS:
        return text
    return text[:MARKDOWN_CHARACTERS].rpartition("\n")[0] + "\n\nThe rest stands in results.md.\n"


def failures(rows: Sequence[Row], trials: Sequence[str]) -> str:
    """Returns which of a run's trials did not finish, and why; "" if all did.

    Args:
      rows: The rows of the sweep's report.
      trials: The trials of this run.
    """
    wanted = set(trials)
    lost = [
        f"{row['trial']}: {row['reason']}"
        for row in rows
        if row["status"] != FINISHED and row["trial"] in wanted
    ]
    text = "; ".join(lost)
    if len(text) <= FAILURES_CHARACTERS:
        return text
    return f"{len(lost)} trials: {text[:FAILURES_CHARACTERS]} …"
