# SPDX-License-Identifier: Apache-2.0
"""The length of a run and when it is evaluated, from its configuration alone."""

from ieg_core.errors import UserError, require
from ieg_core.experiment.config import Config

MIN_EVALUATION_STEPS = 50


def cycle_ends(first_cycle_steps: int, num_cycles: int, multiplier: float) -> list[int]:
    """Returns the step after which each cosine cycle ends.

    Args:
      first_cycle_steps: E, the steps of the first cycle.
      num_cycles: n.
      multiplier: t_mul.

    Returns:
      ⌊E·Σ_{j<i} t_mul^j⌋ for i = 1 … n.
    """
    ends, total = [], 0.0
    for cycle in range(num_cycles):
        total += multiplier**cycle
        ends.append(int(first_cycle_steps * total + 1e-9))
    return ends


def steps_per_epoch(config: Config, num_examples: int) -> int:
    """Returns ⌊num_examples / batch_size⌋, but at least 1."""
    return max(1, num_examples // config.batch_size)


def num_steps(config: Config, epoch_steps: int) -> int:
    """Returns the length of a run in steps, whichever unit its schedule uses.

    Args:
      config: The configuration.
      epoch_steps: Steps per epoch.

    Raises:
      UserError: When the schedule's cycles add up to more than 100,000,000 steps, or not even the
        first cycle fits into its `max_steps`.
    """
    schedule = config.schedule
    if schedule.num_steps:
        return schedule.num_steps
    if schedule.num_epochs:
        return schedule.num_epochs * epoch_steps
    if schedule.max_steps:
        return _whole_cycles(epoch_steps, schedule.cycle_multiplier, schedule.max_steps)
    steps = cycle_ends(epoch_steps, schedule.num_cycles, schedule.cycle_multiplier)[-1]
    if steps > 100_000_000:
        raise UserError(
            f"schedule.num_cycles={schedule.num_cycles} gives {steps} steps: expected at most "
            "100000000; choose fewer cycles"
        )
    return steps


def _whole_cycles(first_cycle_steps: int, multiplier: float, max_steps: int) -> int:
    """Returns the step at which the last cycle that fits into `max_steps` ends."""
    require(
        max_steps >= first_cycle_steps,
        "schedule.max_steps",
        max_steps,
        f"at least the {first_cycle_steps} steps of the first cycle",
    )
    steps, total, length = 0, 0.0, 1.0
    while (end := int(first_cycle_steps * (total + length) + 1e-9)) <= max_steps:
        steps, total, length = end, total + length, length * multiplier
    return steps


def evaluation_steps(config: Config, epoch_steps: int, last: int) -> list[int]:
    """Returns the steps after which to evaluate: equally spaced, at cycle ends, and the last one.

    The equally spaced ones are at least MIN_EVALUATION_STEPS apart: on CIFAR an evaluation costs as
    much as about 60 steps, and would dominate a run of a few steps.
    """
    parts = max(1, min(config.evaluations, last // MIN_EVALUATION_STEPS))
    spaced = {round(last * part / parts) for part in range(1, parts + 1)}
    cycles: list[int] = []
    if config.schedule.name == "cosine_restarts":
        needed = 1
        while cycle_ends(epoch_steps, needed, config.schedule.cycle_multiplier)[-1] < last:
            needed += 1
        cycles = cycle_ends(epoch_steps, needed, config.schedule.cycle_multiplier)
    return sorted(step for step in spaced | set(cycles) | {last} if 0 < step <= last)
