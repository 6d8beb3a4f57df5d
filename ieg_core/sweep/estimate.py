# SPDX-License-Identifier: Apache-2.0
"""Estimates of how long a sweep's trials take, from measured steps.

The rate is the method's own if this results root has a finished trial with the same network, batch
size, image shape, backend and precision. Otherwise it is the rate of a supervised step, measured
once in a separate process, divided by the method's relative cost.
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
from ieg_core.host.runtime import WARNING
from ieg_core.store import layout
from ieg_core.store.records import RatesRecord, TrainingRecord, TrialRecord
from ieg_core.sweep.slots import Slot
from ieg_core.training.checkpoint import read_progress

HEAD_STEPS_PER_SECOND = 80.0
"""Assumed for a head on features; the posterior of the labels, about half of the time, included."""
MEASURE_SECONDS = 180.0
"""Longest measurement: if no step is done by then, one is assumed to take that long."""
OVERHEAD_SECONDS = 15.0
"""Seconds a trial spends on imports, compilation and evaluation; see docs/PERFORMANCE.md."""


def seconds_per_trial(root: Path, trials: Sequence[str], slot: Slot) -> Mapping[str, float]:
    """Estimates the remaining time of each unfinished trial in a slot.

    Args:
      root: The results root.
      trials: Names of planned trials.
      slot: What a trial may use; if no rate is known, a supervised step is measured with it.

    Returns:
      Seconds by trial, without the finished trials.

    Raises:
      UserError: When the measurement fails.
    """
    known = _known_rates(root)
    estimates = {}
    for trial in trials:
        if layout.is_finished(root, trial):
            continue
        folder = layout.trial_folder(root, trial)
        record, _ = TrialRecord.look(folder)
        if record is None:  # damaged: the trial will fail
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
    """Returns the steps in a checkpoint; 0 if it is damaged, in which case the trial will fail."""
    try:
        progress = read_progress(folder)
    except UserError:
        return 0
    return progress.step if progress else 0


def _evaluation_steps(record: TrialRecord) -> float:
    """Returns the cost of a trial's evaluations, in supervised steps.

    An evaluation is a forward pass over the test set with each of the two sets of parameters (last
    and averaged); a step costs three forward passes over a batch.
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
            slot.description,
        )
    )


def _known_rates(root: Path) -> dict[tuple[str, str], float]:
    """Returns steps per second by (key, method): measured steps, then finished trials."""
    rates = {(key, "supervised"): rate for key, rate in _measured(root).items()}
    for path in sorted(root.glob(f"{layout.relative_trial('*')}/{TrainingRecord.NAME}")):
        training, record = TrainingRecord.look(path.parent)[0], TrialRecord.look(path.parent)[0]
        if training and record and training.steps_per_second and training.device == "CPU":
            slot = Slot(threads=training.threads)
            rates[_key(record, slot), record.method] = training.steps_per_second
    return rates


def _measured(root: Path) -> Mapping[str, float]:
    record, _ = RatesRecord.look(root)
    return record.rates if record else {}


def _measure(root: Path, record: TrialRecord, slot: Slot, key: str) -> float:
    """Measures the rate of a supervised step in a separate process, and records it.

    Returns:
      Steps per second; if the measurement takes longer than MEASURE_SECONDS, an assumed rate, which
      is printed and not recorded.
    """
    arguments = {
        "config": record.config,
        "num_classes": record.num_classes,
        "image_shape": record.image_shape,
        "threads": slot.threads,
    }
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "ieg_core.training.measure", json.dumps(arguments)],
            env={**os.environ, **slot.env, **processes.children_environment()},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=MEASURE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        print(
            f"{WARNING}a training step of {record.network} on {slot.description} could not be "
            f"measured in {MEASURE_SECONDS:.0f} s: the estimate assumes that one takes that long",
            file=sys.stderr,
        )
        return 1 / MEASURE_SECONDS
    for line in answer.stdout.splitlines():
        if line.startswith(WARNING):
            print(line, file=sys.stderr)
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or ["no message"]
        raise UserError(
            f"the speed of a training step of {record.network} could not be measured "
            f"({lines[-1]}): expected a step to run; lower batch_size, or choose another network"
        )
    rate = float(answer.stdout.split()[-1])
    RatesRecord(rates={**_measured(root), key: rate}).write(root)
    return rate
