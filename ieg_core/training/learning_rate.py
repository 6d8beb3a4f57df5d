# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules on the host: functions from the step, counted from 0, to its rate.

Warm-up multiplies the first W rates by (t + 1)/W and leaves the schedule's clock alone, so that a
cosine still ends at the last step.
"""

import math
from collections.abc import Callable, Sequence

from ieg_core.experiment.config import ScheduleConfig

Schedule = Callable[[int], float]


def cosine(learning_rate: float, num_steps: int) -> Schedule:
    """Half a cosine from the full rate to 0: lr·½(1 + cos(πt/T)) at t < T."""

    def rate(step: int) -> float:
        return learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(step / num_steps, 1.0)))

    return rate


def cosine_restarts(
    learning_rate: float, first_cycle_steps: int, t_mul: float, m_mul: float = 0.9
) -> Schedule:
    """Cosine cycles; cycle i is E·t_mulⁱ steps long and starts at lr·m_mulⁱ.

    Cycle i begins at E·(t_mulⁱ − 1)/(t_mul − 1), in general between two steps.

    Args:
      learning_rate: lr, the first cycle's first rate.
      first_cycle_steps: E.
      t_mul: A cycle's length in units of the one before it, at least 1.
      m_mul: A cycle's first rate in units of the one before it.

    Returns:
      The schedule, without an end.

    Reference: Loshchilov & Hutter 2017, SGDR (arXiv:1608.03983).
    """

    def rate(step: int) -> float:
        position, length, start = float(step), float(first_cycle_steps), learning_rate
        while position >= length:
            position, length, start = position - length, length * t_mul, start * m_mul
        return start * 0.5 * (1.0 + math.cos(math.pi * position / length))

    return rate


def step(learning_rate: float, boundaries: Sequence[int], factor: float) -> Schedule:
    """Constant rates: multiplied by `factor` from each of the boundaries (steps) on."""

    def rate(step: int) -> float:
        return learning_rate * factor ** sum(step >= boundary for boundary in boundaries)

    return rate


def exponential(learning_rate: float, num_steps: int, factor: float) -> Schedule:
    """Smooth decay by `factor` in all: lr·factor^(t/T)."""

    def rate(step: int) -> float:
        return learning_rate * factor ** (step / num_steps)

    return rate


def warm_up(schedule: Schedule, warmup_steps: int) -> Schedule:
    """Multiplies the first W rates of a schedule by (t + 1)/W; W = 0 changes nothing."""

    def rate(step: int) -> float:
        return schedule(step) * min((step + 1) / max(warmup_steps, 1), 1.0)

    return rate


def build(
    config: ScheduleConfig, learning_rate: float, steps_per_epoch: int, num_steps: int
) -> Schedule:
    """Builds the schedule that a configuration asks for.

    Args:
      config: Name and settings.
      learning_rate: The full rate.
      steps_per_epoch: E, also the first cycle of `cosine_restarts`.
      num_steps: T, the run's length.

    Returns:
      The schedule, warm-up included.
    """
    if config.name == "cosine":
        schedule = cosine(learning_rate, num_steps)
    elif config.name == "cosine_restarts":
        schedule = cosine_restarts(
            learning_rate, steps_per_epoch, config.cycle_multiplier, config.cycle_decay
        )
    elif config.name == "step":
        boundaries = [round(fraction * num_steps) for fraction in config.boundary_fractions]
        schedule = step(learning_rate, boundaries, config.factor)
    else:
        schedule = exponential(learning_rate, num_steps, config.factor)
    return warm_up(schedule, config.warmup_epochs * steps_per_epoch)
