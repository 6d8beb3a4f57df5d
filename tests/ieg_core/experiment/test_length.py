# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.config import ScheduleConfig
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.length import (
    cycle_ends,
    evaluation_steps,
    nearest_cycle_ends,
    num_steps,
    steps_per_epoch,
)
from ieg_core.experiment.overrides import override
from ieg_core.recipes import build


@pytest.mark.parametrize(
    ("base", "probe", "steps"),
    [("cifar10", 100, 193_232), ("cifar100", 1_000, 189_747)],
)
def test_thirteen_cycles_are_the_papers_length(base, probe, steps):
    config = build.build_config(parse(f"{base}_uniform_0.2"), "l2r", recipe="cifar")
    assert num_steps(config, steps_per_epoch(config, 50_000 - probe)) == steps


def test_seven_doubling_cycles_are_63500_steps():
    ends = list(itertools.islice(cycle_ends(500, 2.0), 7))
    assert ends[:3] == [500, 1_500, 3_500]
    assert ends[-1] == 63_500


@pytest.mark.parametrize(
    "length",
    [
        "num_steps=200000000",
        "num_epochs=1000000",
        "num_cycles=5000",  # 1.5**5000 is not a float
        f"num_cycles={10**30} schedule.cycle_multiplier=1",
        "num_cycles=3 schedule.cycle_multiplier=1e308",
    ],
)
def test_a_length_beyond_all_reason_is_refused(length):
    config = build.build_config(parse("cifar10_uniform_0.2"), "l2r", recipe="cifar")
    long = override(config, f"schedule.{length}".split())
    with pytest.raises(UserError, match=r"^schedule\.num_\w+=\d+ gives more than 100000000 steps"):
        num_steps(long, 500)


def test_many_equal_cycles_are_counted_once():
    settings = "name=cosine_restarts cycle_multiplier=1 num_steps=99999"
    equal = override(
        build.build_config(parse("digits"), "fsr", recipe="digits"),
        [f"schedule.{setting}" for setting in settings.split()],
    )
    assert evaluation_steps(equal, 2, 99_999)[-2:] == [99_998, 99_999]
    assert nearest_cycle_ends(equal, 2, 99_999) == [99_998, 100_000]


@pytest.mark.parametrize("epoch", [483, 517])
def test_seven_per_cent_more_images_lengthen_webvision_by_as_much(epoch):
    fsr, ieg = (build.build_config(parse("webvisionmini"), method) for method in ("fsr", "ieg"))
    # Warm-up, then cycles of E·2^i; the authors' 123,300 steps are 255.3 epochs of 483.
    assert num_steps(fsr, epoch) == 3 * epoch + 255 * epoch
    assert num_steps(ieg, 2 * epoch) == int(2 * epoch * (1.5**15 - 1) / 0.5)


def test_the_first_cycle_may_have_its_own_length_and_begin_after_the_warm_up():
    config = build.build_config(parse("cifar10_uniform_0.2"), "fsr", recipe="cifar")
    released = override(config, ["schedule.decay_steps=400", "schedule.warmup_epochs=2"])
    assert num_steps(released, 499) == 400 * 127
    after = override(released, ["schedule.clock_after_warmup=true"])
    assert num_steps(after, 499) == 2 * 499 + 400 * 127
    assert {998 + 400, 998 + 1200} <= set(evaluation_steps(after, 499, num_steps(after, 499)))


@pytest.mark.parametrize(
    ("steps", "nearest"),
    [(3_500, []), (3_499, [1_500, 3_500]), (3_501, [3_500, 7_500]), (9, [500])],
)
def test_a_length_inside_a_cycle_has_neighbors_that_are_not(steps, nearest):
    config = build.build_config(
        parse("cifar10_uniform_0.2"), "fsr", recipe="cifar", num_steps=steps
    )
    assert nearest_cycle_ends(config, 500, steps) == nearest


def test_a_schedule_without_cycles_ends_anywhere():
    config = build.build_config(parse("digits"), "fsr", num_steps=77)
    assert nearest_cycle_ends(config, 14, 77) == []


def test_epochs_count_whole_batches():
    config = build.build_config(parse("cifar10_imbal_0.02"), "supervised", recipe="longtail")
    assert steps_per_epoch(config, 13_996) == 109  # 13,996 / 128 = 109.3
    assert num_steps(config, 109) == 21_800


def test_digits_are_evaluated_every_50_steps():
    config = build.build_config(parse("digits_uniform_0.2"), "supervised")
    assert evaluation_steps(config, 14, 600) == list(range(50, 601, 50))


def test_cycles_are_evaluated_at_their_ends_and_at_least_ten_times():
    config = override(
        build.build_config(parse("cifar10_uniform_0.2"), "supervised", recipe="cifar"),
        ["schedule.cycle_multiplier=2"],
    )
    steps = evaluation_steps(config, 500, 3_500)
    assert {500, 1_500, 3_500} <= set(steps)
    assert len(steps) >= 10
    assert steps[-1] == 3_500


@pytest.mark.parametrize(("steps", "expected"), [(5, [5]), (120, [60, 120]), (50, [50])])
def test_a_short_run_is_evaluated_at_most_every_50_steps(steps, expected):
    config = build.build_config(parse("digits_uniform_0.2"), "supervised", num_steps=steps)
    assert evaluation_steps(config, 14, steps) == expected


def test_a_schedule_has_exactly_one_length():
    for lengths in ({}, {"num_steps": 1, "num_epochs": 1}, {"num_steps": -1}):
        with pytest.raises(ValueError, match="exactly one positive length"):
            ScheduleConfig(**lengths)
