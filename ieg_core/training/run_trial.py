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
from ieg_core.store.records import FailureRecord, TrainingRecord, record_failure


def train_trial(
    trial: str,
    root: Path,
    data_dir: Path,
    runtime: Runtime,
    on_step: Callable[[Any], None] = lambda step_report: None,
) -> None:
    """Trains and evaluates a trial, from its checkpoint if it has one; returns at once if trained.

    A resumed trial computes with the threads and replicas that its checkpoint was made with.

    Raises:
      UserError: A setting is wrong.
      DivergedError: A loss is no longer finite.
      TrialBusyError: Another process trains it.
      SupersededError: Another machine has taken it over: no failure of the trial.
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
    """Evaluates a trained trial from its checkpoint; returns at once if it has its result.

    Training ends with an evaluation of its own, so there is something to do only if it was stopped
    in between, or if `again` asks for it.

    Raises:
      UserError: The trial is not trained yet; failure.json keeps an older reason.
      TrialBusyError: Another process works on it.
      SupersededError: Another machine has taken it over.
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
    """Clears failure.json on entry and writes it when the body fails, as long as it may."""
    folder = lease.folder
    FailureRecord.path(folder).unlink(missing_ok=True)
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
