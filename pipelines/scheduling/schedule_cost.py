# SPDX-License-Identifier: Apache-2.0
"""Estimates the cost of schedules in GPU-hours per run and per month."""

from collections.abc import Sequence

from ieg_core.errors import UserError
from ieg_core.sweep.configurations import configs
from pipelines import profiles
from pipelines.cluster import cost
from pipelines.cluster_files import ClusterFile
from pipelines.scheduling import cron
from pipelines.scheduling.schedules import Schedule

HEADER = ("schedule", "GPU-hours per run", "runs per month", "GPU-hours per month", "step rates")


def table(schedules: Sequence[Schedule], cluster_file: ClusterFile, rates: cost.Rates) -> list[str]:
    """Estimates the cost of schedules, each of whose runs trains everything again.

    Args:
      schedules: The schedules.
      cluster_file: The cluster file, which sets the GPUs per training.
      rates: Known step rates.

    Returns:
      A header, a line for each schedule and, if there are several, their sum; empty without
      schedules.
    """
    rows = []
    total = 0.0
    for schedule in schedules:
        estimated = estimate(schedule, cluster_file, rates)
        often = cron.runs_a_month(schedule.cron)
        total += estimated.gpu_hours * often
        trials = [
            f"{estimated.gpu_hours:.1f}",
            f"{often:.1f}",
            f"{estimated.gpu_hours * often:.1f}",
        ]
        rows.append((schedule.name, *trials, _source(estimated)))
    if len(rows) > 1:
        rows.append(("all", "", "", f"{total:.1f}", ""))
    widths = [max(len(row[column]) for row in [HEADER, *rows]) for column in range(len(HEADER))]
    return [_line(row, widths) for row in [HEADER, *rows]] if rows else []


def estimate(schedule: Schedule, cluster_file: ClusterFile, rates: cost.Rates) -> cost.Estimate:
    """Estimates one run of a schedule."""
    profile = {"cpu": profiles.cpu, "gpu": profiles.gpu}[schedule.profile](cluster_file)
    wanted = configs(schedule.request)
    return cost.estimate(
        wanted,
        runs=[len(wanted)],
        gpus=profile.pod_templates["train"].count,
        at_once=profile.parallelism,
        rates=rates,
    )


def accept(schedule: Schedule, cluster_file: ClusterFile, rates: cost.Rates) -> None:
    """Refuses a schedule of which one run costs more than the budget: nobody watches it start.

    Raises:
      UserError: When the estimate is above the schedule's `max_gpu_hours`, or the cluster file's.
    """
    hours = estimate(schedule, cluster_file, rates).gpu_hours
    budget = schedule.max_gpu_hours or cluster_file.max_gpu_hours
    if hours > budget:
        raise UserError(
            f"each run of the schedule {schedule.name} would take about {hours:.1f} GPU-hours, "
            f"expected at most max_gpu_hours, {budget:g}: set max_gpu_hours in its entry, request "
            "less, or set better step rates with RATES"
        )


def _source(estimated: cost.Estimate) -> str:
    if not estimated.gpu_hours:
        return "no GPUs"
    if not estimated.assumed:
        return "measured"
    return "assumed" if estimated.assumed == estimated.trials else "partly assumed"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers, source = row
    texts = [text.rjust(width) for text, width in zip(numbers, widths[1:-1], strict=True)]
    return "  ".join(["  " + name.ljust(widths[0]), *texts, source]).rstrip()
