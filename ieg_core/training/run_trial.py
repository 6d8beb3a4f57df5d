# SPDX-License-Identifier: Apache-2.0
"""Trains or evaluates one trial in this process, under its lease."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ieg_core.errors import DivergedError, UserError
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.store import layout, leases
from ieg_core.store.layout import is_finished
from ieg_core.store.leases import beating
from ieg_core.store.records import TrainingRecord, record_failure, remove_failure


def train_trial(
    trial: str,
    root: Path,
    data_dir: Path,
    runtime: Runtime,
    on_step: Callable[[Any], None] = lambda step_report: None,
) -> None:
    """Trains and evaluates a trial, starting from its checkpoint if it has one.

    Returns immediately if the trial is already trained. A resumed trial uses the number of threads
    and replicas stored in its checkpoint.

    Args:
      trial: The trial's name.
      root: The results root.
      data_dir: Folder of the base data sets.
      runtime: Threads, replicas, steps per call, seconds between checkpoints.
      on_step: Called with a `training.loop.StepReport` after each call of the loop.

    Raises:
      UserError: When a setting, the data or a checkpoint is unusable.
      DivergedError: When a loss is not finite.
      TrialBusyError: When another process is working on the trial.
      SupersededError: When another machine has taken over the trial; not recorded as a failure.
    """
    folder = layout.trial_folder(root, trial)
    if is_finished(root, trial) or TrainingRecord.exists(folder):
        return
    with leases.owned(folder) as lease, _recorded(lease, "training"):
        from ieg_core.training import checkpoint

        done = checkpoint.read_progress(folder)
        if done is not None:
            runtime = replace(runtime, threads=done.threads, num_replicas=done.num_replicas)
        with beating(lease, "starting", done.step if done else 0) as report_progress:
            set_environment(runtime)
            from ieg_core.training.trial import train_here

            train_here(root, lease, data_dir, runtime, on_step, report_progress)


def evaluate_trial(
    trial: str, root: Path, data_dir: Path, runtime: Runtime, *, again: bool = False
) -> None:
    """Evaluates a trained trial from its checkpoint.

    Training ends with an evaluation, so this returns immediately unless the training was stopped
    between the two, or `again` is set.

    Args:
      trial: The trial's name.
      root: The results root.
      data_dir: Folder of the base data sets.
      runtime: Threads; the evaluation uses one replica.
      again: Whether to evaluate a trial that already has its result.

    Raises:
      UserError: When the trial is not trained yet or its data are unusable.
      TrialBusyError: When another process is working on the trial.
      SupersededError: When another machine has taken over the trial.
    """
    folder = layout.trial_folder(root, trial)
    if is_finished(root, trial) and not again:
        return
    with (
        leases.owned(folder) as lease,
        _recorded(lease, "evaluating"),
        beating(lease, "evaluating") as report_progress,
    ):
        set_environment(runtime)
        from ieg_core.training.trial import evaluate_here

        evaluate_here(root, lease, data_dir, runtime, report_progress)


@contextlib.contextmanager
def _recorded(lease: leases.Lease, phase: str) -> Iterator[None]:
    """Deletes failure.json on entry, and writes it if the body fails under a current lease."""
    folder = lease.folder
    remove_failure(folder)
    try:
        yield
    except leases.SupersededError:
        raise
    except Exception as error:
        leases.require_current(lease)
        plain = isinstance(error, UserError | DivergedError)
        reason = str(error) if plain else f"{type(error).__name__}: {error}"
        record_failure(folder, phase, reason, "" if plain else traceback.format_exc())
        raise
