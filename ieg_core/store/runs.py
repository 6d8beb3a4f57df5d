# SPDX-License-Identifier: Apache-2.0
"""One run of a pipeline: where under the results root it works, and which trials are its part."""

import re
from collections.abc import Sequence
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.store.records import RunRecord

RUN = "{run}"
"""Stands for the run's own id in a namespace: scheduled runs differ in nothing else."""
RUN_ID = "IEG_RUN"
"""Environment variable: the run's id, which each attempt at a trial writes into its lease."""
ATTEMPTS = "IEG_ATTEMPTS"
"""Environment variable: how many attempts a run has at a trial; unset: any number."""
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def results_root(results: str, namespace: str, run: str) -> str:
    """Returns where a run keeps its results.

    Args:
      results: The results root, a folder or gs://bucket/prefix.
      namespace: A part of it that only certain runs read and write, "" for the whole; "{run}" in
        it stands for the run's id.
      run: The run's id.

    Raises:
      UserError: The namespace is no relative path of plain names.
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

    So dealt out, long and short trials are spread evenly: a plan lists the longest first.

    Args:
      trials: All trials of the sweep.
      part: Which run, from 1.
      parts: How many runs.
      most: Largest number of trials that one run may have.

    Raises:
      UserError: There is no such part, it would have no trial, or too many.
    """
    if not 1 <= part <= parts:
        raise UserError(f"part={part} of parts={parts}: expected a part from 1 to {max(parts, 1)}")
    if parts > len(trials):
        raise UserError(
            f"parts={parts}: the sweep has {len(trials)} trials, ask for as many at most"
        )
    found = list(trials[part - 1 :: parts])
    if len(found) > most:
        raise UserError(
            f"{len(found)} trials in one run, at most {most} are possible: start "
            f"parts={-(-len(trials) // most)} runs, with part=1, 2, and so on"
        )
    return found


def write_run(
    root: Path, label: str, sweep: str, trials: Sequence[str], part: int, parts: int
) -> None:
    """Writes down what a run was started for; does nothing without a label.

    Args:
      root: The results root, namespace included.
      label: The run's name, as chosen by who started it.
      sweep: The sweep's name.
      trials: The trials of this run.
      part: Which run of the sweep this is, from 1.
      parts: How many there are.

    Raises:
      UserError: The label is no plain name.
    """
    if not label:
        return
    if not NAME.fullmatch(label):
        raise UserError(f"run_label={label!r}: expected letters, digits, '.', '_' and '-'")
    RunRecord(sweep=sweep, trials=list(trials), part=part, parts=parts).write(root, label)
