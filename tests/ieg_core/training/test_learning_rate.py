# SPDX-License-Identifier: Apache-2.0
import itertools
import math
import subprocess
import sys

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment import length
from ieg_core.experiment.config import ScheduleConfig
from ieg_core.training import learning_rate


def test_cosine_starts_full_halves_in_the_middle_and_ends_near_zero() -> None:
    rate = learning_rate.cosine(0.1, 600)
    assert rate(0) == 0.1
    assert rate(300) == pytest.approx(0.05)
    assert rate(150) == pytest.approx(0.1 * 0.5 * (1 + math.sqrt(0.5)))
    assert 0 < rate(599) < 1e-4
    assert rate(600) == rate(700) == 0.0


def test_restarts_lengthen_and_lower_each_cycle() -> None:
    # Cycles of 4, 6 and 9 steps begin at 0, 4 and 10, at rates 1, 0.9 and 0.81.
    rate = learning_rate.cosine_restarts(1.0, 4, t_mul=1.5, m_mul=0.9)
    assert [rate(step) for step in (0, 2, 4, 7, 10)] == pytest.approx([1, 0.5, 0.9, 0.45, 0.81])
    assert rate(9) == pytest.approx(0.9 * 0.5 * (1 + math.cos(math.pi * 5 / 6)))


def test_a_cycle_may_begin_between_two_steps() -> None:
    # Cycles of 3 and 4.5 steps: the second ends at 7.5, so step 7 is 0.5 before its end.
    rate = learning_rate.cosine_restarts(1.0, 3, t_mul=1.5, m_mul=0.9)
    assert rate(7) == pytest.approx(0.9 * 0.5 * (1 + math.cos(math.pi * 4 / 4.5)))
    assert rate(8) == pytest.approx(0.81 * 0.5 * (1 + math.cos(math.pi * 0.5 / 6.75)))


def test_restarts_of_one_length() -> None:
    rate = learning_rate.cosine_restarts(1.0, 4, t_mul=1.0, m_mul=1.0)
    assert [rate(step) for step in (0, 4, 8)] == [1.0, 1.0, 1.0]
    assert rate(6) == pytest.approx(0.5)


def test_steps_and_exponential_decay() -> None:
    step = learning_rate.step(0.1, [160, 180], 0.01)
    assert [step(t) for t in (0, 159, 160, 179, 180)] == pytest.approx([0.1, 0.1, 1e-3, 1e-3, 1e-5])
    exponential = learning_rate.exponential(0.1, 100, 0.01)
    assert [exponential(t) for t in (0, 50, 100)] == pytest.approx([0.1, 0.01, 0.001])


def test_warm_up_ramps_and_then_leaves_the_schedule_alone() -> None:
    plain = learning_rate.cosine(0.1, 100)
    warm = learning_rate.warm_up(plain, 4)
    ratios = [warm(step) / plain(step) for step in range(6)]
    assert ratios == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert learning_rate.warm_up(plain, 0)(0) == 0.1


def test_the_released_forms_of_warm_up_and_exponential_decay() -> None:
    cycles = {"num_cycles": 2, "warmup_epochs": 2, "clock_after_warmup": True, "decay_steps": 4}
    rate = learning_rate.build(ScheduleConfig("cosine_restarts", **cycles), 0.1, 5, 20)
    # From 0 up to step 10, then cycles of 4 and 6 steps.
    assert [rate(step) for step in (0, 5, 9)] == pytest.approx([0, 0.05, 0.09])
    assert [rate(step) for step in (10, 12, 14, 17)] == pytest.approx([0.1, 0.05, 0.09, 0.045])
    stairs = ScheduleConfig("exponential", num_steps=2000, factor=0.9, decay_steps=500)
    rate = learning_rate.build(stairs, 0.1, 5, 2000)
    assert [rate(step) for step in (499, 500, 999, 1000)] == pytest.approx([0.1, 0.09, 0.09, 0.081])


@pytest.mark.parametrize(
    "setting", [{"decay_steps": 5}, {"clock_after_warmup": True}, {"num_cycles": 1, "num_steps": 0}]
)
def test_settings_of_cycles_are_refused_without_cycles(setting) -> None:
    with pytest.raises(UserError, match="left out unless schedule"):
        ScheduleConfig(**{"name": "cosine", "num_steps": 5} | setting)


@pytest.mark.parametrize(
    ("num_examples", "cycles", "multiplier", "num_steps"),
    [
        pytest.param(50_000 - 100, 13, 1.5, 193_232, id="ieg/cifar10"),
        pytest.param(50_000 - 1_000, 13, 1.5, 189_747, id="ieg/cifar100"),
        pytest.param(50_000, 7, 2.0, 63_500, id="fsr/cifar"),
    ],
)
def test_published_cycles_have_their_steps_and_end_at_a_tiny_rate(
    num_examples: int, cycles: int, multiplier: float, num_steps: int
) -> None:
    epoch = num_examples // 100
    ends = length.cycle_ends(epoch, multiplier)
    assert list(itertools.islice(ends, cycles))[-1] == num_steps
    config = ScheduleConfig(
        name="cosine_restarts", num_cycles=cycles, cycle_multiplier=multiplier, cycle_decay=0.9
    )
    rate = learning_rate.build(config, 0.1, epoch, num_steps)
    assert rate(0) == 0.1
    assert 0 < rate(num_steps - 1) < 1e-4
    # A full step past the end the next cycle has begun.
    assert rate(num_steps + 1) == pytest.approx(0.1 * 0.9**cycles, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ScheduleConfig(num_steps=200), {0: 0.1, 100: 0.05}),
        (
            ScheduleConfig(num_steps=200, warmup_epochs=2),
            {0: 0.005, 9: 0.5 * 0.05 * (1 + math.cos(math.pi * 9 / 200)), 100: 0.05},
        ),
        (
            ScheduleConfig("step", num_epochs=20, boundary_fractions=(0.8, 0.9), factor=0.1),
            {159: 0.1, 160: 0.01, 180: 0.001},
        ),
        (ScheduleConfig("exponential", num_steps=200, factor=0.01), {0: 0.1, 100: 0.01}),
    ],
    ids=["cosine", "cosine with warm-up", "step", "exponential"],
)
def test_build_reads_the_configuration(config: ScheduleConfig, expected: dict[int, float]) -> None:
    rate = learning_rate.build(config, 0.1, steps_per_epoch=10, num_steps=200)
    assert {step: rate(step) for step in expected} == pytest.approx(expected)


def test_schedules_need_no_deep_learning_library() -> None:
    program = (
        "import sys; import ieg_core.training.learning_rate, ieg_core.experiment.networks; "
        "sys.exit(bool({'keras', 'tensorflow', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
