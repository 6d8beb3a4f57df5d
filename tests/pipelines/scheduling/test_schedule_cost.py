# SPDX-License-Identifier: Apache-2.0
"""What schedules cost, by hand."""

import re
from dataclasses import fields

import pytest

from ieg_core.sweep.request import SweepRequest
from pipelines.cluster_files import ClusterFile, GpuNodePool
from pipelines.scheduling import cron, schedule_cost
from pipelines.scheduling.schedules import Schedule

RATES = {("resnet11", "supervised"): 20.0}
FIELDS = {each.name for each in fields(Schedule)}
CLUSTER = ClusterFile(gpu=GpuNodePool(count=2))


def schedule(name="weekly", **changes):
    asked = {"dataset": "cifar10_uniform_0.4", "methods": ("supervised",), "recipe": "cifar_cpu"}
    asked |= {"seeds": tuple(range(10)), "steps": 12_000}
    terms = {"cron": "0 30 2 * * 6", "tolerance": 1.0}
    asked |= {key: value for key, value in changes.items() if key not in FIELDS}
    terms |= {key: value for key, value in changes.items() if key in FIELDS}
    accelerator = terms.get("profile") != "cpu"
    return Schedule(name=name, **terms, request=SweepRequest(**asked, accelerator=accelerator))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 0 3 * * *", 365.25 / 12),
        ("0 0 3 ? * *", 365.25 / 12),
        ("0 0 1 1 * *", 1),
        ("0 0 1 1,15 * *", 2),
        ("0 30 2 * * 6", 365.25 / 7 / 12),
        ("0 30 2 * * MON-fri", 5 * 365.25 / 7 / 12),
        ("0 0 */6 * * *", 4 * 365.25 / 12),
        ("0 0/20 9-17 1 jan *", 3 * 9 / 12),
        ("0 5/20 0 1 1 *", 3 / 12),
        ("0 0 0 31 * *", 7 / 12),
        ("0 0 0 29 2 *", 1 / 48),
        ("0 0 0 30 2 *", 0),
        ("0 0 0 1-7 * 1", (7 * 12 + 365.25 / 7 - 12) / 12),  # either; 12 first Mondays are both
        ("0 0 0 1-7 * ?", 7),
        ("0 0 0 */10 * 0-6/2", (4 * 12 - 5) * 4 / 7 / 12),  # both, for one is *
    ],
)
def test_runs_a_month(text, expected):
    cron.check(text)
    assert cron.runs_a_month(text) == pytest.approx(expected)


def test_gpu_hours_a_run_and_a_month():
    # A trial: 180 s and 12,000 steps and 10 evaluations of 2 × 10,000 images at 300 images a step,
    # at 20 steps a second, 813.3 s; ten trials on two GPUs each, 4.519 hours; 4.348 weeks a month.
    header, line = schedule_cost.table([schedule()], CLUSTER, RATES)
    assert re.split(r" {2,}", header.strip()) == list(schedule_cost.HEADER)
    assert line.split() == ["weekly", "4.5", "4.3", "19.6", "measured"]
    assert [header.index(name) + len(name) for name in schedule_cost.HEADER[1:4]] == [
        line.index(number) + len(number) for number in (" 4.5", " 4.3", "19.6")
    ]


def test_several_schedules_have_a_sum_and_cpus_cost_no_gpu_hours():
    found = schedule_cost.table(
        [schedule(), schedule("monthly", cron="0 0 1 1 * *"), schedule("nightly", profile="cpu")],
        CLUSTER,
        RATES,
    )
    rows = [line.split() for line in found[1:]]
    assert rows == [
        ["weekly", "4.5", "4.3", "19.6", "measured"],
        ["monthly", "4.5", "1.0", "4.5", "measured"],
        ["nightly", "0.0", "4.3", "0.0", "no", "GPUs"],
        ["all", "24.2"],  # 4.519 × 5.348
    ]


def test_what_is_assumed_is_said_to_be():
    both = schedule(methods=("supervised", "ieg"))
    (_, none), (_, one) = (
        schedule_cost.table([both], CLUSTER, rates) for rates in ({}, {("resnet11", "ieg"): 3.0})
    )
    assert none.endswith("  assumed")
    assert one.endswith("  partly assumed")
    assert schedule_cost.table([], CLUSTER, {}) == []
