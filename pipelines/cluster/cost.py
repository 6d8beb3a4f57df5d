# SPDX-License-Identifier: Apache-2.0
"""Estimates the cost of a sweep on GPUs, its pods and GPU-hours, from the best known step rates.

The step rate of a training is the first of these that is known: the rate that RATES gives for the
network and method; the rate measured by finished trials in the results root; the rate of a plain
step of that network, from RATES or the results root, divided by the method's relative cost; an
assumed rate, which the output marks as assumed.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.experiment import length, networks
from ieg_core.experiment.config import Config
from ieg_core.experiment.dataset_spec import DatasetSpec
from ieg_core.experiment.methods import METHODS, method_spec
from ieg_core.host import files
from ieg_core.store import mirror
from ieg_core.store.layout import relative_sweep, relative_trial
from ieg_core.store.record import below
from ieg_core.store.records import ReportRecord, TrainingRecord, TrialRecord

Rates = Mapping[tuple[str, str], float]
"""Training steps per second by network and method."""

PLAIN = "supervised"
PODS_PER_TRIAL, OTHER_PODS = 5, 8
"""A task has two pods, a driver and an executor; a trial has two tasks and its loop's driver.

Trials that share a pod count once.
"""
MAX_FILES = 400
POD_SECONDS = 180.0
"""Assumed time for which a GPU is held while the image is pulled and the step is compiled."""
ASSUMED_FLOPS = 20e12
ASSUMED_STEP_SECONDS = 0.012
"""The least duration of a training step; like one GPU's operations per second, an assumption.

A step is three passes with two operations for each multiplication: 6·MACs·batch.
"""
TRAIN_EXAMPLES: Mapping[str, int] = {
    **{"digits": 1437, "cifar10": 50_000, "cifar100": 50_000},
    "fashion_mnist": 60_000,
    "webvisionmini": 65_944,
}
TEST_EXAMPLES: Mapping[str, int] = {"digits": 360, "webvisionmini": 2500}
USUAL_EXAMPLES, USUAL_TESTS = 50_000, 10_000
IMAGENET_MACS: Mapping[int, float] = {18: 1.8e9, 34: 3.7e9, 50: 4.1e9, 101: 7.8e9, 152: 11.5e9}


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a sweep.

    Attributes:
      trials: Number of trials.
      pods: Number of pods, including drivers.
      gpu_hours: Hours of all GPUs together; 0 without GPUs.
      hours: Duration in hours, without waiting for nodes.
      at_once: Number of concurrent trials.
      assumed: Number of trials whose rate is assumed.
    """

    trials: int
    pods: int
    gpu_hours: float
    hours: float
    at_once: int
    assumed: int

    @property
    def line(self) -> str:
        """The estimate as one line."""
        trials = "1 trial" if self.trials == 1 else f"{self.trials} trials"
        size = f"{trials}, {self.pods} pods"
        if not self.gpu_hours:
            return f"{size}, no GPUs"
        if self.assumed == self.trials:
            source = "step rates assumed, not measured: set better ones with RATES"
        elif self.assumed:
            source = f"step rates measured, but assumed for {self.assumed} trials"
        else:
            source = "step rates measured"
        return (
            f"{size}, about {self.gpu_hours:.1f} GPU-hours in {self.hours:.1f} hours with "
            f"{self.at_once} concurrent trials ({source})"
        )


def estimate(
    wanted: Sequence[tuple[DatasetSpec, Config]],
    *,
    runs: Sequence[int],
    gpus: int,
    at_once: int,
    rates: Rates,
    trials_per_pod: int = 1,
) -> Estimate:
    """Estimates the cost of a sweep.

    Args:
      wanted: Data set and configuration of each trial.
      runs: Number of trials in each run.
      gpus: GPUs per training; 0 for none.
      at_once: Concurrent trials of a run; 0 for all.
      rates: Known step rates.
      trials_per_pod: Trials that share a pod.

    Returns:
      The estimate. Finished trials are counted as if they had to run again.
    """
    seconds, assumed = [], 0
    for spec, config in wanted:
        rate, is_assumed = step_rate(config, max(1, gpus), rates)
        seconds.append(POD_SECONDS + plain_steps(spec, config) / rate)
        assumed += is_assumed
    shared = [-(-trials // trials_per_pod) for trials in runs]
    most = max(1, sum(min(at_once or items, items) for items in shared))
    hours = max(sum(seconds) / most, max(seconds)) / 3600
    gpu_hours = gpus * sum(seconds) / 3600
    pods = sum(PODS_PER_TRIAL * items + OTHER_PODS for items in shared)
    return Estimate(len(seconds), pods, gpu_hours, hours, most, assumed if gpus else 0)


def accept(estimated: Estimate, max_gpu_hours: float) -> None:
    """Refuses an estimate above the budget.

    Raises:
      UserError: When the estimate is above `max_gpu_hours`.
    """
    if estimated.gpu_hours > max_gpu_hours:
        raise UserError(
            f"the sweep would take about {estimated.gpu_hours:.1f} GPU-hours, more than "
            f"MAX_GPU_HOURS={max_gpu_hours:g}: raise it, or request fewer STEPS, METHODS, NOISE or "
            "SEEDS"
        )


def plain_steps(spec: DatasetSpec, config: Config) -> float:
    """Returns the cost of a trial's training and evaluations, in training steps of its method.

    An evaluation is two forward passes over the test set, a plain step three passes over a batch.
    """
    epoch = length.steps_per_epoch(config, num_examples(spec))
    steps = length.num_steps(config, epoch)
    images = 2 * len(length.evaluation_steps(config, epoch, steps))
    images *= TEST_EXAMPLES.get(spec.base, USUAL_TESTS)
    cost = method_spec(config.method).relative_cost
    return steps + images / (3 * config.batch_size) / cost


def num_examples(spec: DatasetSpec) -> int:
    """Returns a data set's approximate number of training examples, without opening it.

    In a long tail, class c keeps N/C·ρ^(c/(C−1)) examples.
    """
    size = TRAIN_EXAMPLES.get(spec.base, USUAL_EXAMPLES)
    if spec.imbalance is None:
        return size
    classes = spec.num_classes
    kept = sum(spec.imbalance ** (c / (classes - 1)) for c in range(classes))
    return round(size / classes * kept)


def step_rate(config: Config, gpus: int, rates: Rates) -> tuple[float, bool]:
    """Returns a training's steps per second, and whether it is assumed."""
    network, method = config.network, config.method
    if (network, method) in rates:
        return rates[network, method], False
    cost = method_spec(method).relative_cost
    if (network, PLAIN) in rates:
        return rates[network, PLAIN] / cost, False
    seconds = 6 * macs(network) * config.batch_size / (ASSUMED_FLOPS * gpus)
    return 1 / (cost * max(seconds, ASSUMED_STEP_SECONDS)), True


def macs(network: str) -> float:
    """Returns the approximate number of multiplications in a forward pass of one image.

    Counted on the built networks at 32×32 (8×8 for preact8, 224×224 for ImageNet's); linear in the
    number of blocks and quadratic in the width. Custom networks count as resnet50.
    """
    parsed = networks.parse(network)
    if parsed.family == "bottleneck":
        return 2.7e6 + 31.8e6 * parsed.blocks_per_stage
    if parsed.family == "basic":
        return -1.9e6 + 14.2e6 * parsed.blocks_per_stage
    if parsed.family == "wide":
        return 13.1e6 * parsed.blocks_per_stage * parsed.width**2
    if parsed.family == "preact8":
        return 3.0e6
    return IMAGENET_MACS.get(parsed.blocks_per_stage, IMAGENET_MACS[50])


def read_rates(text: str) -> Rates:
    """Reads RATES: `wrn28-10:supervised=9.5,wrn28-10:ieg=1.4`, or the path of a JSON file.

    Args:
      text: Rates in training steps per second, for a training with all its GPUs on the cluster, or
        the path of a file such as {"wrn28-10": {"supervised": 9.5}}.

    Raises:
      UserError: When the text is neither, or a rate, network or method is invalid.
    """
    if text.strip().endswith(".json"):
        return _from_file(Path(text.strip()))
    rates = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = part.partition("=")
        network, colon, method = name.rpartition(":")
        if not (equals and colon):
            raise UserError(
                f"RATES={part!r}: expected network:method=steps per second, such as "
                "wrn28-10:supervised=9.5, or a file ending in .json"
            )
        rates[network.strip(), method.strip()] = _rate(part, number)
        _check_names(network.strip(), method.strip())
    return rates


def _from_file(path: Path) -> Rates:
    content = files.read_json(path)
    if content is None:
        raise UserError(f"RATES={str(path)!r}: there is no such file; expected a JSON file")
    rates = {}
    try:
        for network, methods in content.items():
            for method, number in methods.items():
                _check_names(network, method)
                rates[network, method] = _rate(f"{path}: {network}: {method}", json.dumps(number))
    except AttributeError:
        raise UserError(
            f'{path}: expected {{"network": {{"method": steps per second}}}}, got {content!r}'
        ) from None
    return rates


def _check_names(network: str, method: str) -> None:
    networks.validate(network)
    method_spec(method)


def _rate(what: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise UserError(f"RATES: {what}: expected steps per second above 0, got {text.strip()!r}")
    return rate


def measured_rates(root: Path) -> Rates:
    """Collects the step rates of the newest trials that were trained on GPUs.

    Args:
      root: A results root in a folder, which need not exist.

    Returns:
      The median rate by network and method.
    """
    rows = []
    for folder in _newest(root.glob(f"{relative_trial('*')}/{TrainingRecord.NAME}")):
        training, record = TrainingRecord.look(folder)[0], TrialRecord.look(folder)[0]
        if training and record:
            rows.append({**record.to_value(), **training.to_value()})
    return _medians(rows)


def reported_rates(root: str) -> Rates:
    """Collects the step rates of trainings on GPUs from the newest report in a bucket.

    Args:
      root: A results root, gs://….

    Returns:
      The median rate by network and method.

    Raises:
      UserError: When the bucket cannot be read.
    """
    newest = mirror.latest(root)
    report = ReportRecord.read(below(root, relative_sweep(newest))) if newest else None
    return _medians(report.trials if report else ())


def _medians(rows: Iterable[Mapping[str, Any]]) -> Rates:
    measured: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        rate, device = row.get("steps_per_second"), row.get("device") or "CPU"
        network, method = str(row.get("network", "")), str(row.get("method"))
        if isinstance(rate, int | float) and rate > 0 and device != "CPU" and method in METHODS:
            measured.setdefault((network, method), []).append(rate)
    return {key: statistics.median(values) for key, values in measured.items()}


def _newest(paths: Iterable[Path]) -> list[Path]:
    def modified(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:
            return 0.0

    return [path.parent for path in sorted(paths, key=modified, reverse=True)[:MAX_FILES]]
