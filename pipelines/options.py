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
from pipelines.cluster_files import ClusterFile
from pipelines.variables import DATA_DIR, OUT

OPTIONS = {each.variable: each for each in (*variables.TUNE, *variables.SWEEP)}
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """The request of `make sweep`.

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
    if there := given(arguments, lambda each: each.scope == "cluster"):
        reason = "RUNNER=local" if arguments.runner == "local" else "no endpoint is configured"
        raise UserError(
            f"{there}: only for a sweep on a cluster, but {reason}: set endpoint in "
            "cluster.yaml or KF_PIPELINES_ENDPOINT"
        )
    return None


def read(arguments: argparse.Namespace) -> Options:
    """Turns the texts into values.

    Raises:
      UserError: When a text is not acceptable.
    """
    gpus = machine.find_gpus(arguments.devices)
    max_hours = positive("MAX_HOURS", arguments.max_hours)
    for each in (DATA_DIR, OUT):
        if not getattr(arguments, each.key).strip():
            raise UserError(f"{each.variable} is empty: expected a folder")
    wanted = request(
        arguments, accelerator=bool(gpus), data_dir=arguments.data_dir, results=arguments.out
    )
    count = _number(OPTIONS["GPUS_PER_TRIAL"], arguments.gpus_per_trial, int)
    slots.plan_slots(1, gpus, count, cores=1, memory=0)
    return Options(wanted, gpus, count, max_hours, machine.names_gpus(arguments.devices))


def read_tuning(arguments: argparse.Namespace) -> tuple[int, float]:
    """Reads what only `make tune` takes: the points of each method, and the share held out.

    Raises:
      UserError: When a text is not a number.
    """
    points, share = (OPTIONS[name] for name in ("POINTS", "VALIDATION"))
    return _number(points, arguments.points, int), _number(share, arguments.validation, float)


def request(
    arguments: argparse.Namespace, *, accelerator: bool, data_dir: str, results: str
) -> SweepRequest:
    """Returns what a sweep trains, on the place that runs it.

    Args:
      arguments: The options of `make sweep`.
      accelerator: Whether that place trains on GPUs, which decides the default recipe.
      data_dir: Its folder of data sets.
      results: Its results root.

    Raises:
      UserError: When a text is not acceptable.
    """
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


def given(arguments: argparse.Namespace, concerned: Callable[[Option], bool]) -> str:
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


def positive(variable: str, text: str) -> float:
    """Returns a number; raises UserError unless it is finite and above 0."""
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
