# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from scripts.gpu_check.figures import busy_share, compare, time_call
from scripts.gpu_check.sizes import REHEARSAL
from tests.clock import FakeClock


def test_gradients_are_compared_over_all_parameters_together():
    expected = [np.full(3, 4.0), np.full((2, 2), 5.0)]
    found = [expected[0], expected[1] + 1e-3]
    compared = compare(found, expected, "float32")
    assert compared["distance"] == pytest.approx(2e-3 / np.sqrt(148))
    assert compared["equal"]
    assert not compare([expected[0] * 1.01, expected[1]], expected, "float32")["equal"]
    assert not compare([expected[0] * np.nan, expected[1]], expected, "float32")["equal"]


def test_overlapping_kernels_count_once():
    assert busy_share([(0, 4), (1, 3), (2, 5), (9, 10)]) == pytest.approx(0.6)
    assert busy_share([]) is None


def test_the_first_call_is_the_compilation():
    clock, ran = FakeClock(), []

    def run(steps):
        ran.append(steps)
        clock.sleep(0 if len(ran) > 1 else 30)

    timed = time_call(run, REHEARSAL, clock)
    assert ran == [1, *[REHEARSAL.steps] * REHEARSAL.rounds]
    assert timed["compile_seconds"] == pytest.approx(30, abs=0.1)
