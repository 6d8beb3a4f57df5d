# SPDX-License-Identifier: Apache-2.0
"""The variables of `make sweep`, read strictly: what is wrong is told under the variable's name."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ieg_core.errors import UserError
from ieg_core.experiment.methods import DEFAULT_METHODS
from ieg_core.host import machine
from ieg_core.sweep import slots
from ieg_core.sweep.request import SweepRequest
from pipelines import cluster_files
from pipelines.cluster import cost
from pipelines.cluster_files import ClusterFile

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What `make sweep` was asked for.

    Attributes:
      request: What to train.
      gpus: The GPUs to use; empty for the CPU.
      gpus_per_trial: How many of them a trial gets.
      max_hours: Longest estimate that is accepted.
    """

    request: SweepRequest
    gpus: tuple[str, ...]
    gpus_per_trial: int
    max_hours: float

    @property
    def results(self) -> Path:
        """The results root."""
        return Path(self.request.results)


@dataclass(frozen=True)
class ClusterOptions:
    """What `make sweep` was asked for where a cluster runs it.

    Attributes:
      request: What to train; where data and results lie is the cluster's matter.
      cluster_file: The cluster file.
      profile: "gpu" or "cpu".
      max_gpu_hours: Largest estimate that is submitted.
      rates: Step rates that the user knows.
      follow: Whether to follow what is submitted to its end.
      watch: An earlier run to follow instead of submitting anything; empty: none.
      resume: An earlier run to go on with; empty: none.
      max_pending: Minutes after which runs that only wait are canceled; 0: never.
      out: Folder on this machine under which the report is copied.
    """

    request: SweepRequest
    cluster_file: ClusterFile
    profile: str
    max_gpu_hours: float
    rates: cost.Rates
    follow: bool
    watch: str
    resume: str
    max_pending: float
    out: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares one option for each variable of `make sweep`, all of them texts."""
    for name in (
        *("dataset", "noise", "methods", "seeds", "recipe", "network", "steps", "set"),
        "labels",
        *("data-dir", "out", "max-hours", "devices", "gpus-per-trial"),
        *(
            "runner",
            "cluster",
            "profile",
            "watch",
            "max-gpu-hours",
            "max-pending",
            "resume",
            "rates",
        ),
    ):
        parser.add_argument(f"--{name}", default=DEFAULTS.get(name, ""), metavar="TEXT")


DEFAULTS = {
    "dataset": "digits_uniform",
    "methods": ",".join(DEFAULT_METHODS),
    "seeds": "0",
    "data-dir": "./data",
    "out": "runs",
    "max-hours": "4",
    "devices": "auto",
    "gpus-per-trial": "1",
    "runner": "auto",
    "profile": "gpu",
}
RUNNERS = ("auto", "local", "cluster")
PROFILES = ("gpu", "cpu")
REPEATS = "RESUME, which repeats the run as it was submitted"
ONLY_HERE = ("data-dir", "max-hours", "devices", "gpus-per-trial")
OF_A_NEW_RUN = (
    *("dataset", "noise", "methods", "seeds", "recipe", "network", "steps", "set", "labels"),
    *("profile", "max-gpu-hours", "rates"),
)
ONLY_THERE = ("watch", "max-gpu-hours", "max-pending", "resume", "rates")


def choose_cluster(arguments: argparse.Namespace) -> ClusterFile | None:
    """Decides where the sweep runs.

    Returns:
      The cluster of the cluster that runs it, or None for this machine.

    Raises:
      UserError: RUNNER is none, the cluster file is wrong, or a variable of a cluster's sweep was
        given for one on this machine.
    """
    _choose("RUNNER", arguments.runner, RUNNERS)
    cluster_file = (
        cluster_files.load(arguments.cluster_file or None)
        if arguments.runner != "local"
        else ClusterFile()
    )
    configured = cluster_files.endpoint_configured(cluster_file)
    if arguments.runner == "cluster" or (arguments.runner == "auto" and configured):
        return cluster_file
    given = [name for name in ONLY_THERE if getattr(arguments, name.replace("-", "_"))]
    if given:
        reason = "RUNNER=local" if arguments.runner == "local" else "no endpoint is configured"
        raise UserError(
            f"{_variables(given)}: only for a sweep on a cluster, but {reason}: set endpoint in "
            "cluster.yaml or KF_PIPELINES_ENDPOINT"
        )
    return None


def read_cluster(arguments: argparse.Namespace, cluster_file: ClusterFile) -> ClusterOptions:
    """Turns the texts into values, for a sweep on a cluster.

    Raises:
      UserError: A text that is no value of its kind, or a variable of this machine's sweeps.
    """
    here = [n for n in _given(arguments, ONLY_HERE) if n != "data-dir"]
    if arguments.data_dir not in (DEFAULTS["data-dir"], cluster_file.data_dir):
        here = ["data-dir", *here]
    if here:
        raise UserError(
            f"{_variables(here)}: only for a sweep on this machine, but this one goes to "
            f"{cluster_files.endpoint(cluster_file) or 'a cluster'}: leave it out, see "
            "cluster.yaml, or RUNNER=local"
        )
    if not arguments.out.strip():
        raise UserError("OUT is empty: expected a folder")
    _choose("PROFILE", arguments.profile, PROFILES)
    hours = arguments.max_gpu_hours or str(cluster_file.max_gpu_hours)
    watch = arguments.watch.strip()
    earlier = "" if watch in ("", "0", "1") else watch
    if earlier and arguments.resume:
        raise UserError(f"WATCH={watch!r} with RESUME: expected WATCH=1 to follow what is resumed")
    new = _given(arguments, OF_A_NEW_RUN) if earlier or arguments.resume else []
    if new:
        why = f"WATCH={earlier!r}, which submits nothing" if earlier else REPEATS
        raise UserError(f"{_variables(new)}: not with {why}: leave it out")
    max_pending = 0.0
    if arguments.max_pending:
        expected = "minutes above 0, such as 30"
        max_pending = _positive("MAX_PENDING", arguments.max_pending, expected)
        if watch in ("", "0"):
            raise UserError(f"MAX_PENDING={arguments.max_pending!r}: only with WATCH=1")
    return ClusterOptions(
        request=_request(
            arguments,
            accelerator=arguments.profile == "gpu",
            data_dir=cluster_file.data_dir,
            results=cluster_file.results,
        ),
        cluster_file=cluster_file,
        profile=arguments.profile,
        max_gpu_hours=_positive("MAX_GPU_HOURS", hours, "GPU-hours above 0, such as 24"),
        rates=cost.read_rates(arguments.rates),
        follow=watch == "1",
        watch=earlier,
        resume=arguments.resume.strip(),
        max_pending=max_pending,
        out=Path(arguments.out),
    )


def read(arguments: argparse.Namespace) -> Options:
    """Turns the texts into values.

    Raises:
      UserError: A text that is no value of its kind.
    """
    gpus = machine.find_gpus(arguments.devices)
    max_hours = _positive("MAX_HOURS", arguments.max_hours, "hours above 0, such as 4")
    for variable, text in (("DATA_DIR", arguments.data_dir), ("OUT", arguments.out)):
        if not text.strip():
            raise UserError(f"{variable} is empty: expected a folder")
    request = _request(
        arguments, accelerator=bool(gpus), data_dir=arguments.data_dir, results=arguments.out
    )
    count = _number("GPUS_PER_TRIAL", arguments.gpus_per_trial, int, "a whole number of GPUs")
    slots.plan_slots(1, gpus, count, cores=1, memory=0)
    return Options(request, gpus, count, max_hours)


def _request(
    arguments: argparse.Namespace, *, accelerator: bool, data_dir: str, results: str
) -> SweepRequest:
    steps = _number("STEPS", arguments.steps or "0", int, "a whole number of training steps")
    if arguments.steps and steps < 1:
        raise UserError(f"STEPS={arguments.steps!r}: expected at least 1, or nothing")
    return SweepRequest(
        dataset=arguments.dataset,
        noise_ratios=_list("NOISE", arguments.noise, float, "ratios in [0, 1], such as 0.2,0.4"),
        methods=_list("METHODS", arguments.methods, str, "names, such as supervised,l2r"),
        seeds=_list("SEEDS", arguments.seeds, int, "whole numbers, such as 0,1,2"),
        recipe=arguments.recipe,
        network=arguments.network,
        steps=steps,
        settings=tuple(arguments.set.split()),
        accelerator=accelerator,
        data_dir=data_dir,
        results=results,
        labels=arguments.labels,
    )


def _given(arguments: argparse.Namespace, names: tuple[str, ...]) -> list[str]:
    """Returns the options that are not at their default."""
    return [n for n in names if getattr(arguments, n.replace("-", "_")) != DEFAULTS.get(n, "")]


def _choose(variable: str, text: str, known: tuple[str, ...]) -> None:
    if text not in known:
        raise UserError(f"{variable}={text!r}: expected one of {', '.join(known)}")


def _variables(names: list[str]) -> str:
    return ", ".join(name.upper().replace("-", "_") for name in names)


def _positive(variable: str, text: str, expected: str) -> float:
    number = _number(variable, text, float, expected)
    if not 0 < number < math.inf:
        raise UserError(f"{variable}={text!r}: expected {expected}")
    return number


def _list(variable: str, text: str, kind: Callable[[str], T], expected: str) -> tuple[T, ...]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    try:
        if all(parts):
            return tuple(kind(part) for part in parts)
    except ValueError:
        pass
    raise UserError(f"{variable}={text!r}: expected {expected}, separated by commas")


def _number(variable: str, text: str, kind: Callable[[str], T], expected: str) -> T:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{variable}={text!r}: expected {expected}") from None
