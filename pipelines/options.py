# SPDX-License-Identifier: Apache-2.0
"""Reads the variables of `make sweep` strictly; a message names the variable that is wrong."""

import argparse
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ieg_core.errors import UserError
from ieg_core.host import machine
from ieg_core.sweep import slots
from ieg_core.sweep.request import REQUEST_OPTIONS, Option, SweepRequest
from pipelines import cluster_files, variables
from pipelines.cluster import cost
from pipelines.cluster_files import ClusterFile
from pipelines.variables import DATA_DIR, OUT

OPTIONS = {each.variable: each for each in (*variables.TUNE, *variables.SWEEP)}
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What `make sweep` was asked for.

    Attributes:
      request: What to train.
      gpus: The GPUs to use; empty for the CPU.
      gpus_per_trial: How many of them a trial gets.
      max_hours: Longest estimate that is accepted.
      gpus_required: Whether the user named the GPUs.
    """

    request: SweepRequest
    gpus: tuple[str, ...]
    gpus_per_trial: int
    max_hours: float
    gpus_required: bool = False

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


REPEATS = "RESUME, which repeats the run as it was submitted"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares one option for each variable of `make sweep`, all of them texts."""
    variables.add_arguments(parser, "sweep")


def choose_cluster(arguments: argparse.Namespace) -> ClusterFile | None:
    """Decides where the sweep runs.

    Returns:
      The cluster file of the cluster that runs it, or None for this machine.

    Raises:
      UserError: When RUNNER is unknown, the cluster file is wrong, or a variable of a cluster's
        sweep was given for one on this machine.
    """
    check_choice(variables.RUNNER, arguments.runner)
    cluster_file = (
        cluster_files.load(arguments.cluster or None)
        if arguments.runner != "local"
        else ClusterFile()
    )
    configured = cluster_files.endpoint_configured(cluster_file)
    if arguments.runner == "cluster" or (arguments.runner == "auto" and configured):
        return cluster_file
    if given := _given(arguments, lambda each: each.scope == "cluster"):
        reason = "RUNNER=local" if arguments.runner == "local" else "no endpoint is configured"
        raise UserError(
            f"{given}: only for a sweep on a cluster, but {reason}: set endpoint in "
            "cluster.yaml or KF_PIPELINES_ENDPOINT"
        )
    return None


def read_cluster(arguments: argparse.Namespace, cluster_file: ClusterFile) -> ClusterOptions:
    """Turns the texts into values, for a sweep on a cluster.

    Raises:
      UserError: When a text is not acceptable, or a variable of this machine's sweeps was given.
    """
    own_data = arguments.data_dir != cluster_file.data_dir
    if here := _given(
        arguments, lambda each: each.scope == "here" and (each is not DATA_DIR or own_data)
    ):
        raise UserError(
            f"{here}: only for a sweep on this machine, but this one goes to "
            f"{cluster_files.endpoint(cluster_file) or 'a cluster'}: leave it out, see "
            "cluster.yaml, or RUNNER=local"
        )
    if not arguments.out.strip():
        raise UserError("OUT is empty: expected a folder")
    check_choice(variables.PROFILE, arguments.profile)
    hours = arguments.max_gpu_hours or str(cluster_file.max_gpu_hours)
    watch = arguments.watch.strip()
    earlier = "" if watch in ("", "0", "1") else watch
    if earlier and arguments.resume:
        raise UserError(f"WATCH={watch!r} with RESUME: expected WATCH=1 to follow what is resumed")
    new = _given(arguments, lambda each: each.new_run)
    if new and (earlier or arguments.resume):
        why = f"WATCH={earlier!r}, which submits nothing" if earlier else REPEATS
        raise UserError(f"{new}: not with {why}: leave it out")
    max_pending = 0.0
    if arguments.max_pending:
        max_pending = _positive("MAX_PENDING", arguments.max_pending)
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
        max_gpu_hours=_positive("MAX_GPU_HOURS", hours),
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
      UserError: When a text is not acceptable.
    """
    gpus = machine.find_gpus(arguments.devices)
    max_hours = _positive("MAX_HOURS", arguments.max_hours)
    for each in (DATA_DIR, OUT):
        if not getattr(arguments, each.key).strip():
            raise UserError(f"{each.variable} is empty: expected a folder")
    request = _request(
        arguments, accelerator=bool(gpus), data_dir=arguments.data_dir, results=arguments.out
    )
    count = _number(OPTIONS["GPUS_PER_TRIAL"], arguments.gpus_per_trial, int)
    slots.plan_slots(1, gpus, count, cores=1, memory=0)
    return Options(request, gpus, count, max_hours, machine.names_gpus(arguments.devices))


def read_tuning(arguments: argparse.Namespace) -> tuple[int, float]:
    """Reads what only `make tune` takes: the points of each method, and the share held out.

    Raises:
      UserError: When a text is not a number.
    """
    points, share = (OPTIONS[name] for name in ("POINTS", "VALIDATION"))
    return _number(points, arguments.points, int), _number(share, arguments.validation, float)


def _request(
    arguments: argparse.Namespace, *, accelerator: bool, data_dir: str, results: str
) -> SweepRequest:
    hints = typing.get_type_hints(SweepRequest)
    values = {
        name: _value(each, getattr(arguments, each.key), hints[name])
        for name, each in REQUEST_OPTIONS.items()
    }
    place = {"accelerator": accelerator, "data_dir": data_dir, "results": results}
    return SweepRequest(**values | place)


def _value(each: Option, text: str, kind: Any) -> Any:
    """Reads a variable of a request, by the type of the request's field."""
    if typing.get_origin(kind) is tuple:
        return _list(each, text, typing.get_args(kind)[0])
    if kind is not int:
        return text
    number = _number(each, text or "0", int)
    if text and number < 1:
        raise UserError(f"{each.variable}={text!r}: expected {each.expected}, at least 1")
    return number


def _given(arguments: argparse.Namespace, concerned: Callable[[Option], bool]) -> str:
    """Lists the variables among those concerned that are not at their default."""
    return ", ".join(
        each.variable
        for each in variables.SWEEP
        if concerned(each) and getattr(arguments, each.key) != each.default
    )


def check_choice(each: Option, text: str) -> None:
    """Raises UserError unless a text is one of an option's choices."""
    if text not in each.choices:
        raise UserError(f"{each.variable}={text!r}: expected one of {', '.join(each.choices)}")


def _positive(variable: str, text: str) -> float:
    number = _number(OPTIONS[variable], text, float)
    if not 0 < number < math.inf:
        raise UserError(f"{variable}={text!r}: expected {OPTIONS[variable].expected}")
    return number


def _list(each: Option, text: str, kind: Callable[[str], T]) -> tuple[T, ...]:
    if each.separator.isspace():
        parts = text.split()
    else:
        parts = [part.strip() for part in text.split(each.separator)] if text.strip() else []
    try:
        if all(parts):
            return tuple(kind(part) for part in parts)
    except ValueError:
        pass
    raise UserError(f"{each.variable}={text!r}: expected {each.expected}, separated by commas")


def _number(each: Option, text: str, kind: Callable[[str], T]) -> T:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{each.variable}={text!r}: expected {each.expected}") from None
