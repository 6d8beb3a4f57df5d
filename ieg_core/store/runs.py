# SPDX-License-Identifier: Apache-2.0
"""A pipeline run: its namespace in the results root, and its part of the trials."""

import re
from collections.abc import Sequence
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.store.records import RunRecord

RUN = "{run}"
"""Placeholder for the run's id in a namespace; scheduled runs differ in nothing else."""
ATTEMPTS = "IEG_ATTEMPTS"
"""Environment variable: maximum attempts of a run at a trial; unlimited if unset."""
AT_ONCE = "IEG_TRIALS_AT_ONCE"
"""Environment variable: number of a pod's trials that train at the same time; 1 if unset."""
TIME_LIMIT = "IEG_TIME_LIMIT"
"""Environment variable: seconds after which a task ends its trials; unlimited if unset."""
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def results_root(results: str, namespace: str, run: str) -> str:
    """Returns the results root of a run, including its namespace.

    Args:
      results: The results root, a folder or gs://bucket/prefix.
      namespace: Path below `results` that the run works in, "" for `results` itself; "{run}" is
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

    A plan lists the longest trials first, so this spreads long and short ones evenly.

    Args:
      trials: All trials of the sweep.
      part: Number of this run, counted from 1.
      parts: Number of runs.
      most: Maximum number of trials in one run.

    Raises:
      UserError: When there is no such part, it would be empty, or it would have more than `most`
        trials.
    """
    if not 1 <= part <= parts:
        raise UserError(f"part={part} of parts={parts}: expected a part from 1 to {max(parts, 1)}")
    if parts > len(trials):
        raise UserError(
            f"parts={parts}: expected at most {len(trials)}, the number of trials in the sweep"
        )
    selected = list(trials[part - 1 :: parts])
    if len(selected) > most:
        raise UserError(
            f"{len(selected)} trials in one run, expected at most {most}: start "
            f"parts={-(-len(trials) // most)} runs, with part=1, 2, and so on"
        )
    return selected


def share_pods(trials: Sequence[str], trials_per_pod: int) -> list[str]:
    """Distributes trials over as few pods as possible, each with about the same total length.

    A plan lists the longest trials first, so each pod takes every n-th trial.

    Args:
      trials: The trials' names, none of which contains a blank.
      trials_per_pod: Maximum number of trials in one pod.

    Returns:
      For each pod, the names of its trials, separated by blanks.
    """
    pods = -(-len(trials) // trials_per_pod)
    return [" ".join(trials[pod::pods]) for pod in range(pods)]


def write_run(
    root: Path, label: str, sweep: str, trials: Sequence[str], part: int, parts: int
) -> None:
    """Records the sweep and the trials of a run; does nothing without a label.

    Args:
      root: The results root, including the namespace.
      label: The name that the user gave the run, "" for none.
      sweep: The sweep's name.
      trials: The trials of this run.
      part: Number of this run, counted from 1.
      parts: Number of runs of the sweep.

    Raises:
      UserError: When the label is not a plain name.
    """
    if not label:
        return
    if not NAME.fullmatch(label):
        raise UserError(f"run_label={label!r}: expected letters, digits, '.', '_' and '-'")
    RunRecord(sweep=sweep, trials=list(trials), part=part, parts=parts).write(root, label)
