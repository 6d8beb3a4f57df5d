# SPDX-License-Identifier: Apache-2.0
"""One run of a pipeline: its part of the results root, and its part of the trials."""

import re
from collections.abc import Sequence
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.store.records import RunRecord

RUN = "{run}"
"""Placeholder for the run's id in a namespace, the only thing in which scheduled runs differ."""
RUN_ID = "IEG_RUN"
"""Environment variable: the run's id, which each attempt at a trial writes to its lease."""
ATTEMPTS = "IEG_ATTEMPTS"
"""Environment variable: the maximum attempts of a run at a trial; unlimited if unset."""
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def results_root(results: str, namespace: str, run: str) -> str:
    """Returns where a run keeps its results.

    Args:
      results: The results root, a folder or gs://bucket/prefix.
      namespace: A part of it that only certain runs read and write; "" for the whole. "{run}" is
        replaced by the run's id.
      run: The run's id.

    Raises:
      UserError: When the namespace is not a relative path of plain names.
    """
    if not namespace:
        return results
    parts = namespace.replace(RUN, run).split("/")
    if not all(map(NAME.fullmatch, parts)):
        raise UserError(
            f"results_namespace={namespace!r}: expected names of letters, digits, '.', '_' and '-' "
            f"separated by '/', such as weekly/{RUN}"
        )
    return f"{results.rstrip('/')}/{'/'.join(parts)}"


def part_of(trials: Sequence[str], part: int, parts: int, most: int) -> list[str]:
    """Returns the trials of one of several runs of a sweep: every `parts`-th, from the `part`-th.

    A plan lists the longest trials first, so this distributes long and short trials evenly.

    Args:
      trials: All trials of the sweep.
      part: Which run, from 1.
      parts: How many runs.
      most: The most trials that one run may have.

    Raises:
      UserError: When there is no such part, or it would have no trials or too many.
    """
    if not 1 <= part <= parts:
        raise UserError(f"part={part} of parts={parts}: expected a part from 1 to {max(parts, 1)}")
    if parts > len(trials):
        raise UserError(
            f"parts={parts}: the sweep has {len(trials)} trials, expected at most that many parts"
        )
    chosen = list(trials[part - 1 :: parts])
    if len(chosen) > most:
        raise UserError(
            f"{len(chosen)} trials in one run, at most {most} are possible: start "
            f"parts={-(-len(trials) // most)} runs, with part=1, 2, and so on"
        )
    return chosen


def write_run(
    root: Path, label: str, sweep: str, trials: Sequence[str], part: int, parts: int
) -> None:
    """Records a run's sweep and trials, if the run has a label.

    Args:
      root: The results root, namespace included.
      label: The run's name, chosen by the person who started it; "" for none.
      sweep: The sweep's name.
      trials: The trials of this run.
      part: Which run of the sweep this is, from 1.
      parts: How many there are.

    Raises:
      UserError: When the label is not a plain name.
    """
    if not label:
        return
    if not NAME.fullmatch(label):
        raise UserError(f"run_label={label!r}: expected letters, digits, '.', '_' and '-'")
    RunRecord(sweep=sweep, trials=list(trials), part=part, parts=parts).write(root, label)
