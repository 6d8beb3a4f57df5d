# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules on the host: functions from the step, counted from 0, to its rate.

Warm-up multiplies the first W rates by (t + 1)/W. It does not shift the schedule, so a cosine still
ends at the last step. Cycles may instead begin after W steps, as the papers' authors released it.
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
    """Cosine cycles: cycle i takes E·t_mulⁱ steps and starts at lr·m_mulⁱ.

    Cycle i begins at E·(t_mulⁱ − 1)/(t_mul − 1) (at i·E for t_mul = 1), usually between two steps.

    Args:
      learning_rate: lr, the first rate of the first cycle.
      first_cycle_steps: E, the length of the first cycle in steps.
      t_mul: Ratio of a cycle's length to that of the previous cycle, at least 1.
      m_mul: Ratio of a cycle's first rate to that of the previous cycle.

    Returns:
      The schedule; it has no last step.

    Reference: Loshchilov & Hutter 2017, SGDR (arXiv:1608.03983).
    """

    def rate(step: int) -> float:
        position, length, start = float(step), float(first_cycle_steps), learning_rate
        while position >= length:
            position, length, start = position - length, length * t_mul, start * m_mul
        return start * 0.5 * (1.0 + math.cos(math.pi * position / length))

    return rate


def step(learning_rate: float, boundaries: Sequence[int], factor: float) -> Schedule:
    """Piecewise constant: lr·factorᵏ, where k boundaries (in steps) are at or before t."""

    def rate(step: int) -> float:
        return learning_rate * factor ** sum(step >= boundary for boundary in boundaries)

    return rate


def exponential(learning_rate: float, num_steps: int, factor: float) -> Schedule:
    """Exponential decay that reaches `factor` at T: lr·factor^(t/T)."""

    def rate(step: int) -> float:
        return learning_rate * factor ** (step / num_steps)

    return rate


def stairs(learning_rate: float, decay_steps: int, factor: float) -> Schedule:
    """Exponential decay in stairs of D steps: lr·factor^⌊t/D⌋."""

    def rate(step: int) -> float:
        return learning_rate * factor ** (step // decay_steps)

    return rate


def warm_up(schedule: Schedule, warmup_steps: int) -> Schedule:
    """Multiplies the first W rates of a schedule by (t + 1)/W; W = 0 changes nothing."""

    def rate(step: int) -> float:
        return schedule(step) * min((step + 1) / max(warmup_steps, 1), 1.0)

    return rate


def after_warm_up(schedule: Schedule, learning_rate: float, warmup_steps: int) -> Schedule:
    """Begins a schedule after W steps in which the rate rises from 0: lr·t/W at t < W."""

    def rate(step: int) -> float:
        if step < warmup_steps:
            return learning_rate * step / warmup_steps
        return schedule(step - warmup_steps)

    return rate


def build(
    config: ScheduleConfig, learning_rate: float, steps_per_epoch: int, num_steps: int
) -> Schedule:
    """Builds the schedule of a configuration.

    Args:
      config: Name and settings of the schedule.
      learning_rate: The full rate.
      steps_per_epoch: E, also the length of the first cycle of `cosine_restarts` unless the
        configuration has another.
      num_steps: T, the total number of steps.

    Returns:
      The schedule, including its warm-up.
    """
    if config.name == "cosine":
        schedule = cosine(learning_rate, num_steps)
    elif config.name == "cosine_restarts":
        schedule = cosine_restarts(
            learning_rate,
            config.decay_steps or steps_per_epoch,
            config.cycle_multiplier,
            config.cycle_decay,
        )
    elif config.name == "step":
        boundaries = [round(fraction * num_steps) for fraction in config.boundary_fractions]
        schedule = step(learning_rate, boundaries, config.factor)
    elif config.decay_steps:
        schedule = stairs(learning_rate, config.decay_steps, config.factor)
    else:
        schedule = exponential(learning_rate, num_steps, config.factor)
    warmup_steps = config.warmup_epochs * steps_per_epoch
    if config.clock_after_warmup:
        return after_warm_up(schedule, learning_rate, warmup_steps)
    return warm_up(schedule, warmup_steps)
