# SPDX-License-Identifier: Apache-2.0
"""What the schedules cost: GPU-hours a run and a month, shown before anything is changed."""

from collections.abc import Sequence

from ieg_core import sweep
from pipelines import cron as crons
from pipelines import profiles
from pipelines.cluster import cost
from pipelines.schedules import Schedule
from pipelines.site import Site

HEADER = ("schedule", "GPU-hours a run", "runs a month", "GPU-hours a month", "step rates")


def table(schedules: Sequence[Schedule], site: Site, rates: cost.Rates) -> list[str]:
    """Estimates what schedules cost if each of their runs trains everything, which it does.

    Args:
      schedules: The schedules.
      site: The installation; its profiles say how many GPUs a training gets.
      rates: Known step rates.

    Returns:
      Lines of text: a header, one a schedule, and with several one for all; none without schedules.
    """
    rows = []
    total = 0.0
    for schedule in schedules:
        estimated = estimate(schedule, site, rates)
        often = crons.runs_a_month(schedule.cron)
        total += estimated.gpu_hours * often
        cells = [f"{estimated.gpu_hours:.1f}", f"{often:.1f}", f"{estimated.gpu_hours * often:.1f}"]
        rows.append((schedule.name, *cells, _source(estimated)))
    if len(rows) > 1:
        rows.append(("all", "", "", f"{total:.1f}", ""))
    widths = [max(len(row[column]) for row in [HEADER, *rows]) for column in range(len(HEADER))]
    return [_line(row, widths) for row in [HEADER, *rows]] if rows else []


def estimate(schedule: Schedule, site: Site, rates: cost.Rates) -> cost.Estimate:
    """Estimates one run of a schedule."""
    profile = {"cpu": profiles.cpu, "gpu": profiles.gpu}[schedule.profile](site)
    wanted = sweep.configs(schedule.request)
    return cost.estimate(
        wanted,
        runs=[len(wanted)],
        gpus=profile.placements["train"].count,
        at_once=profile.parallelism,
        rates=rates,
    )


def _source(estimated: cost.Estimate) -> str:
    if not estimated.gpu_hours:
        return "no GPUs"
    if not estimated.assumed:
        return "measured"
    return "assumed" if estimated.assumed == estimated.cells else "partly assumed"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers, source = row
    texts = [text.rjust(width) for text, width in zip(numbers, widths[1:-1], strict=True)]
    return "  ".join(["  " + name.ljust(widths[0]), *texts, source]).rstrip()
