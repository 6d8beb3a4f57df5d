# SPDX-License-Identifier: Apache-2.0
"""The length of a run and when it is evaluated, from its configuration alone."""

import itertools
from collections.abc import Iterator

from ieg_core.errors import UserError
from ieg_core.experiment.config import LENGTHS, Config, ScheduleConfig

MAX_STEPS = 100_000_000
MIN_EVALUATION_STEPS = 50


def cycle_ends(first_cycle_steps: int, multiplier: float) -> Iterator[int]:
    """Yields the step after which each cosine cycle ends, up to the first beyond MAX_STEPS.

    ⌊E·Σ_{j<i} t_mul^j⌋ for i = 1, 2, …

    Args:
      first_cycle_steps: E, the steps of the first cycle.
      multiplier: t_mul, at least 1.
    """
    total = 0.0
    for cycle in itertools.count():
        total += multiplier**cycle
        end = int(min(first_cycle_steps * total, MAX_STEPS + 1) + 1e-9)
        yield end
        if end > MAX_STEPS:
            return


def steps_per_epoch(config: Config, num_examples: int) -> int:
    """Returns ⌊num_examples / batch_size⌋, but at least 1."""
    return max(1, num_examples // config.batch_size)


def num_steps(config: Config, epoch_steps: int) -> int:
    """Returns the length of a run in steps, whichever unit its schedule uses.

    Args:
      config: The configuration.
      epoch_steps: Steps per epoch.

    Raises:
      UserError: When they are more than MAX_STEPS.
    """
    schedule = config.schedule
    steps = schedule.num_steps or schedule.num_epochs * epoch_steps
    cycles = min(schedule.num_cycles, MAX_STEPS + 1)
    for end in itertools.islice(_ends(schedule, epoch_steps), cycles):
        steps = end
    if steps > MAX_STEPS:
        length = next(f"{name}={given}" for name in LENGTHS if (given := getattr(schedule, name)))
        raise UserError(
            f"schedule.{length} gives more than {MAX_STEPS} steps: expected at most that many; "
            "choose a shorter training"
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
    ends = []
    for end in _ends(schedule, epoch_steps):
        ends.append(end)
        if end >= last:
            break
    return ends


def _ends(schedule: ScheduleConfig, epoch_steps: int) -> Iterator[int]:
    """Yields the ends of cycles, warm-up included."""
    begin = schedule.warmup_epochs * epoch_steps if schedule.clock_after_warmup else 0
    ends = cycle_ends(schedule.decay_steps or epoch_steps, schedule.cycle_multiplier)
    return (begin + end for end in ends)
