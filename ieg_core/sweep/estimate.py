# SPDX-License-Identifier: Apache-2.0
"""How long a sweep's trials will take, from measured steps.

A method's own rate, where this results root has a finished trial of the same network, batch, image
shape, backend and precision; else the rate of a plain step, measured once in a process of its own,
times the method's relative cost.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ieg_core.errors import UserError
from ieg_core.experiment.methods import METHODS
from ieg_core.host import processes
from ieg_core.store import layout
from ieg_core.store.records import RatesRecord, TrainingRecord, TrialRecord
from ieg_core.sweep.slots import Slot
from ieg_core.training.checkpoint import read_progress

HEAD_STEPS_PER_SECOND = 80.0
"""Assumed for a head on features; the posterior of the labels, about half of the time, included."""
OVERHEAD_SECONDS = 15.0
"""Imports, compilation and evaluation of a trial; measured in docs/PERFORMANCE.md."""


def seconds_per_trial(root: Path, trials: Sequence[str], slot: Slot) -> Mapping[str, float]:
    """Estimates the time that each unfinished trial still needs in a slot.

    Args:
      root: The results root.
      trials: Names of planned trials.
      slot: What a trial may use; a plain step is measured with it if no rate is known.

    Returns:
      Seconds by trial, finished trials left out.

    Raises:
      UserError: The measurement failed.
    """
    known = _known_rates(root)
    estimates = {}
    for trial in trials:
        if layout.is_finished(root, trial):
            continue
        folder = layout.trial_folder(root, trial)
        record, _ = TrialRecord.look(folder)
        if record is None:  # damaged: it will fail
            continue
        key, method = _key(record, slot), record.method
        if (key, "supervised") not in known and (key, method) not in known:
            is_head = record.config.get("head") is not None
            rate = HEAD_STEPS_PER_SECOND if is_head else _measure(root, record, slot, key)
            known[key, "supervised"] = rate
        if (key, method) in known:
            per_step = 1 / known[key, method]
        else:
            per_step = METHODS[method].relative_cost / known[key, "supervised"]
        plain_step = per_step / METHODS[method].relative_cost
        left = 1 - _steps_done(folder) / record.num_steps
        seconds = record.num_steps * per_step + _evaluation_steps(record) * plain_step
        estimates[trial] = left * seconds + OVERHEAD_SECONDS
    return estimates


def _steps_done(folder: Path) -> int:
    """Returns the steps in a checkpoint: none in a damaged one, which will fail its trial."""
    try:
        progress = read_progress(folder)
    except UserError:
        return 0
    return progress.step if progress else 0


def _evaluation_steps(record: TrialRecord) -> float:
    """Returns what a run's evaluations cost in plain steps.

    Each is a forward pass over the test set with either parameters; a step is three passes over a
    batch.
    """
    images = 2 * record.num_evaluations * record.num_test_examples
    return images / (3 * record.config["batch_size"])


def _key(record: TrialRecord, slot: Slot) -> str:
    return " ".join(
        (
            record.backend,
            record.network,
            "x".join(map(str, record.image_shape)),
            f"batch {record.config['batch_size']}",
            record.precision,
            f"{len(slot.gpus)} GPUs" if slot.gpus else f"{slot.threads} threads",
        )
    )


def _known_rates(root: Path) -> dict[tuple[str, str], float]:
    """Collects steps per second by (key, method): measured ones, then those of finished trials."""
    rates = {(key, "supervised"): rate for key, rate in _measured(root).items()}
    for path in sorted((root / "trials").glob(f"*/{TrainingRecord.NAME}")):
        training, record = TrainingRecord.look(path.parent)[0], TrialRecord.look(path.parent)[0]
        if training and record and training.steps_per_second and training.device == "CPU":
            slot = Slot(threads=training.threads)
            rates[_key(record, slot), record.method] = training.steps_per_second
    return rates


def _measured(root: Path) -> Mapping[str, float]:
    found, _ = RatesRecord.look(root)
    return found.rates if found else {}


def _measure(root: Path, record: TrialRecord, slot: Slot, key: str) -> float:
    """Measures a plain step's rate in a process of its own and remembers it."""
    asked = {
        "config": record.config,
        "num_classes": record.num_classes,
        "image_shape": record.image_shape,
        "threads": slot.threads,
    }
    answer = subprocess.run(
        [sys.executable, "-m", "ieg_core.training.measure", json.dumps(asked)],
        env={**os.environ, **slot.env, **processes.children_environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"the speed of a training step could not be measured: {lines[-1]}")
    rate = float(answer.stdout.split()[-1])
    RatesRecord(rates={**_measured(root), key: rate}).write(root)
    return rate
