# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file that holds the whole state, with the progress in its header.

The file is written under a temporary name, flushed and renamed, so a kill at any moment leaves
either the old checkpoint or the new one. Each attempt at a trial writes to its own numbered file
and the highest number counts, so an attempt that was presumed dead cannot overwrite its
successor's checkpoint. Loading a checkpoint executes nothing from it, and checks its digests; a
damaged one is left out if an earlier attempt's is still there.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ieg_core.errors import UserError
from ieg_core.host.files import write_bytes_atomic
from ieg_core.store import arrays
from ieg_core.store.layout import checkpoint_name
from ieg_core.store.leases import Lease, numbers, require_current

Tree = Any
FORMAT = 1
_REMEDY = "delete it to start this trial again"


@dataclass(frozen=True)
class Progress:
    """The host-side state of a training, stored in the checkpoint's header.

    Attributes:
      trial: The trial that the state belongs to.
      step: Number of completed steps.
      threads: CPU threads of the run (ieg_core.host.runtime).
      num_replicas: Number of replicas of the run.
      train_seconds: Training time so far in seconds, summed over all attempts.
      curves: The contents of curves.json so far.
    """

    trial: str
    step: int
    threads: int
    num_replicas: int
    train_seconds: float
    curves: dict[str, list[dict[str, float]]]


def checkpoint_path(folder: Path, attempt: int) -> Path:
    """Returns the path of an attempt's checkpoint."""
    return folder / checkpoint_name(attempt)


def saved_attempts(folder: Path) -> list[int]:
    """Returns the numbers of the attempts that have a checkpoint, latest first."""
    try:
        path = checkpoint_path(folder, 0)
        return numbers(os.listdir(path.parent), path.suffix)
    except (FileNotFoundError, NotADirectoryError):
        return []


def save_checkpoint(lease: Lease, state: Mapping[str, Tree], progress: Progress) -> None:
    """Writes an attempt's checkpoint, then deletes those of earlier attempts.

    Args:
      lease: The attempt; it determines the file.
      state: Nested lists and dictionaries of numpy arrays.
      progress: Stored in the file's header.

    Raises:
      SupersededError: When there is a later attempt; nothing is written.
      UserError: When the folder is not writable or the disk is full.
    """
    data = arrays.encode(_flatten(state), {"format": FORMAT, **asdict(progress)})
    require_current(lease)
    write_bytes_atomic(checkpoint_path(lease.folder, lease.attempt), data)
    for attempt in saved_attempts(lease.folder):
        if attempt < lease.attempt:
            with contextlib.suppress(OSError):
                checkpoint_path(lease.folder, attempt).unlink()


def read_progress(folder: Path) -> Progress | None:
    """Reads the header of the latest readable checkpoint; None if the trial has no checkpoint.

    The header is checked, the arrays are not.

    Raises:
      UserError: When every checkpoint is damaged or has an unknown format.
    """
    latest = _latest(folder, _header)
    return latest[1] if latest else None


def describe_latest(folder: Path) -> str:
    """Describes the checkpoint that a trial would resume from: "step 75, <path>", or "none"."""
    latest = _latest(folder, _header)
    return f"step {latest[1].step}, {latest[0]}" if latest else "none"


def load_checkpoint(folder: Path, trial: str, template: Mapping[str, Tree]) -> tuple[Any, Progress]:
    """Reads the latest readable checkpoint into the structure of a template.

    Args:
      folder: The trial's folder.
      trial: The trial that the checkpoint must belong to.
      template: A state of the same structure, as built by `training.step.initial_state`.

    Returns:
      The state, as numpy arrays, and the progress.

    Raises:
      UserError: When there is no checkpoint, it is damaged, or it belongs to another configuration.
    """
    latest = _latest(folder, lambda path: arrays.read(path, _REMEDY))
    if latest is None:
        raise UserError(f"{folder} has no checkpoint: train the trial first")
    path, progress, tensors = latest
    if progress.trial != trial:
        raise UserError(
            f"{path} belongs to {progress.trial}, expected {trial}: it was written with another "
            "configuration; choose another folder, or delete the file to start again"
        )
    expected = _flatten(template)
    shapes = {name: (array.shape, array.dtype) for name, array in tensors.items()}
    if shapes != {name: (array.shape, array.dtype) for name, array in expected.items()}:
        raise UserError(f"{path} does not match this network: {_REMEDY}")
    return _unflatten(template, tensors, ""), progress


Contents = tuple[Mapping[str, np.ndarray], dict[str, Any]]


def _header(path: Path) -> Contents:
    return {}, arrays.read_facts(path, _REMEDY)


def _latest(
    folder: Path, read: Callable[[Path], Contents]
) -> tuple[Path, Progress, Mapping[str, np.ndarray]] | None:
    """Finds the latest checkpoint that can be read, and says which ones cannot.

    Raises:
      UserError: When there are checkpoints but none can be read.
    """
    attempts = saved_attempts(folder)
    while True:
        problems = []
        for attempt in attempts:
            path = checkpoint_path(folder, attempt)
            try:
                tensors, facts = read(path)
                progress = _parse(path, facts)
            except FileNotFoundError:
                continue
            except UserError as error:
                problems.append(error)
            else:
                for problem in problems:
                    print(f"ieg: {problem}; {path.name} is used instead", file=sys.stderr)
                return path, progress, tensors
        listed = saved_attempts(folder)
        if listed == attempts:
            break
        attempts = listed  # a later attempt has saved its checkpoint and deleted the earlier ones
    if problems:
        raise problems[0]
    return None


def _parse(path: Path, facts: dict[str, Any]) -> Progress:
    received = facts.pop("format", None)
    if received != FORMAT:
        raise UserError(f"{path} has format {received}, expected {FORMAT}: {_REMEDY}")
    return Progress(**facts)


def _flatten(tree: Tree, prefix: str = "") -> dict[str, np.ndarray]:
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, list):
        items = {f"{index:04d}": value for index, value in enumerate(tree)}.items()
    else:
        return {prefix: np.ascontiguousarray(tree)}
    flat: dict[str, np.ndarray] = {}
    for key, value in items:
        flat |= _flatten(value, f"{prefix}/{key}" if prefix else key)
    return flat


def _unflatten(template: Tree, arrays: Mapping[str, np.ndarray], prefix: str) -> Tree:
    def name(key: str) -> str:
        return f"{prefix}/{key}" if prefix else key

    if isinstance(template, Mapping):
        return {key: _unflatten(value, arrays, name(key)) for key, value in template.items()}
    if isinstance(template, list):
        return [
            _unflatten(value, arrays, name(f"{index:04d}")) for index, value in enumerate(template)
        ]
    return arrays[prefix]
