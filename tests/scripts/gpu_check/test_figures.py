# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from scripts.gpu_check.figures import (
    FirstStep,
    busy_share,
    compare,
    relative_distance,
    time_call,
)
from scripts.gpu_check.sizes import REHEARSAL
from tests.clock import FakeClock


def step(kernel=1.0, offset=1.0, loss=2.0, **examples):
    gradients = {"conv/kernel": np.full((3, 3), kernel), "norm/beta": np.full(4, 0.01 * offset)}
    return FirstStep(gradients, loss, {name: np.array(each) for name, each in examples.items()})


def test_a_tensor_that_is_off_is_named_however_small_it_is():
    compared = compare(step(kernel=1 + 1e-6, offset=1.01), step(), "float32")
    assert compared["tensor"] == "norm/beta"
    assert compared["distances"] == {"tensor": pytest.approx(0.01), "loss": 0.0}
    assert compared["limits"] == {"tensor": 1e-3, "loss": 1e-4}
    assert not compared["equal"]
    assert compare(step(kernel=1 + 1e-6), step(), "float32")["equal"]


@pytest.mark.parametrize(
    ("other", "figure"),
    [
        ({"loss": 2.02}, "loss"),
        ({"weight": [0.5, 0.49]}, "weight"),
        ({"label_coefficient": [1.0, 1.0]}, "label_coefficient"),
        ({"kernel": np.nan}, "tensor"),
        ({"loss": np.inf}, "loss"),
    ],
)
def test_each_figure_of_a_step_counts(other, figure):
    examples = {"weight": [0.5, 0.5], "label_coefficient": [1.0, 0.0]}
    compared = compare(step(**(examples | other)), step(**examples), "float32")
    assert not compared["equal"]
    assert not compared["distances"][figure] <= compared["limits"][figure]
    assert compare(step(**examples), step(**examples), "float32")["equal"]


def test_a_bfloat16_step_may_be_twice_as_far_as_the_cpus():
    rounded = step(kernel=1.01, offset=1.1)
    near = compare(step(kernel=0.99, offset=0.81), step(), "bfloat16", rounded)
    assert near["equal"]
    assert near["tensor"] == "norm/beta"
    assert near["limits"]["tensor"] == pytest.approx(4e-3 + 0.2)
    far = compare(step(kernel=0.97, offset=0.81), step(), "bfloat16", rounded)
    assert not far["equal"]
    assert far["tensor"] == "conv/kernel"  # the other one is farther, but within its limit


def test_nothing_is_far_from_zero_but_zero():
    assert relative_distance(np.zeros(2), np.zeros(2)) == 0.0
    assert relative_distance(np.ones(2), np.zeros(2)) == np.inf


def test_overlapping_kernels_count_once():
    assert busy_share([(0, 4), (1, 3), (2, 5), (9, 10)]) == pytest.approx(0.6)
    assert busy_share([]) is None


def test_the_first_call_is_the_compilation():
    clock, ran = FakeClock(), []

    def run(steps):
        ran.append(steps)
        clock.sleep(0 if len(ran) > 1 else 30)

    timed = time_call(run, REHEARSAL, lambda: ran.append("quiet"), clock)
    assert ran == [1, "quiet", *[REHEARSAL.steps] * REHEARSAL.rounds]
    assert timed["compile_seconds"] == pytest.approx(30, abs=0.1)
