# SPDX-License-Identifier: Apache-2.0
"""The variables of `make sweep`, read strictly: what is wrong is told under the variable's name."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ieg_core import slots
from ieg_core.errors import UserError
from ieg_core.settings import DEFAULT_METHODS
from ieg_core.sweep import SweepRequest

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What `make sweep` was asked for.

    Attributes:
      request: What to train.
      gpus: The GPUs to use; empty for the CPU.
      gpus_per_cell: How many of them a cell gets.
      max_hours: Longest estimate that is accepted.
    """

    request: SweepRequest
    gpus: tuple[str, ...]
    gpus_per_cell: int
    max_hours: float

    @property
    def results(self) -> Path:
        """The results root."""
        return Path(self.request.results)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares one option for each variable of `make sweep`, all of them texts."""
    for name in (
        *("dataset", "noise", "methods", "seeds", "recipe", "network", "steps", "set"),
        "labels",
        *("data-dir", "out", "max-hours", "devices", "gpus-per-cell"),
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
    "gpus-per-cell": "1",
}


def read(arguments: argparse.Namespace) -> Options:
    """Turns the texts into values.

    Raises:
      UserError: A text that is no value of its kind.
    """
    gpus = slots.find_gpus(arguments.devices)
    max_hours = _number("MAX_HOURS", arguments.max_hours, float, "hours above 0")
    if not (0 < max_hours < math.inf):
        raise UserError(f"MAX_HOURS={arguments.max_hours!r}: expected hours above 0, such as 4")
    steps = _number("STEPS", arguments.steps or "0", int, "a whole number of training steps")
    if arguments.steps and steps < 1:
        raise UserError(f"STEPS={arguments.steps!r}: expected at least 1, or nothing")
    for variable, text in (("DATA_DIR", arguments.data_dir), ("OUT", arguments.out)):
        if not text.strip():
            raise UserError(f"{variable} is empty: expected a folder")
    request = SweepRequest(
        dataset=arguments.dataset,
        noise_ratios=_list("NOISE", arguments.noise, float, "ratios in [0, 1], such as 0.2,0.4"),
        methods=_list("METHODS", arguments.methods, str, "names, such as supervised,l2r"),
        seeds=_list("SEEDS", arguments.seeds, int, "whole numbers, such as 0,1,2"),
        recipe=arguments.recipe,
        network=arguments.network,
        steps=steps,
        settings=tuple(arguments.set.split()),
        accelerator=bool(gpus),
        data_dir=arguments.data_dir,
        results=arguments.out,
        labels=arguments.labels,
    )
    count = _number("GPUS_PER_CELL", arguments.gpus_per_cell, int, "a whole number of GPUs")
    slots.plan_slots(1, gpus, count, cores=1, memory=0)
    return Options(request, gpus, count, max_hours)


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
