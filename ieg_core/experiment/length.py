# SPDX-License-Identifier: Apache-2.0
"""The length of a run and when it is evaluated, from its configuration alone."""

from ieg_core.errors import UserError
from ieg_core.experiment.config import Config, ScheduleConfig

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
      UserError: When the schedule's cycles add up to more than 100,000,000 steps.
    """
    schedule = config.schedule
    if schedule.num_steps:
        return schedule.num_steps
    if schedule.num_epochs:
        return schedule.num_epochs * epoch_steps
    steps = _ends(config.schedule, epoch_steps, schedule.num_cycles)[-1]
    if steps > 100_000_000:
        raise UserError(
            f"schedule.num_cycles={schedule.num_cycles} gives {steps} steps: expected at most "
            "100000000; choose fewer cycles"
        )
    return steps


def evaluation_steps(config: Config, epoch_steps: int, last: int) -> list[int]:
    """Returns the steps after which to evaluate: equally spaced, at cycle ends, and the last one.

    The equally spaced ones are at least MIN_EVALUATION_STEPS apart: on CIFAR an evaluation costs as
    much as about 60 steps, and would dominate a run of a few steps.
    """
    parts = max(1, min(config.evaluations, last // MIN_EVALUATION_STEPS))
    spaced = {round(last * part / parts) for part in range(1, parts + 1)}
    cycles = _ends_until(config.schedule, epoch_steps, last)
    return sorted(step for step in spaced | set(cycles) | {last} if 0 < step <= last)


def nearest_cycle_ends(config: Config, epoch_steps: int, last: int) -> list[int]:
    """Returns the lengths, below and above, that end with a cosine cycle where `last` does not.

    In the middle of a cycle the rate is high, and so is the noise of the last parameters.

    Args:
      config: The configuration.
      epoch_steps: Steps per epoch.
      last: The length of the run in steps.

    Returns:
      One length or two, in ascending order; none if the run ends with a cycle or has no cycles.
    """
    ends = _ends_until(config.schedule, epoch_steps, last)
    return [] if last in ends else ends[-2:]


def _ends_until(schedule: ScheduleConfig, epoch_steps: int, last: int) -> list[int]:
    """Returns the ends of the cycles of `cosine_restarts` up to the first at or after `last`."""
    if schedule.name != "cosine_restarts":
        return []
    needed = 1
    while _ends(schedule, epoch_steps, needed)[-1] < last:
        needed += 1
    return _ends(schedule, epoch_steps, needed)


def _ends(schedule: ScheduleConfig, epoch_steps: int, num_cycles: int) -> list[int]:
    """Returns the ends of the first cycles, warm-up included."""
    begin = schedule.warmup_epochs * epoch_steps if schedule.clock_after_warmup else 0
    first = schedule.decay_steps or epoch_steps
    return [begin + end for end in cycle_ends(first, num_cycles, schedule.cycle_multiplier)]
