# SPDX-License-Identifier: Apache-2.0
"""One step on two devices is the step on one: the global batch decides, not its shares.

Unless `synchronized_batch_norm` is off; then both backends make the same other step.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.backends import assert_close, run_on

SCRIPT = Path(__file__).parent / "steps.py"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_make_the_step_of_one(one_step, backend):
    found = run_on(backend, SCRIPT, "2")
    assert len(found) > 200
    reference = one_step()
    for name in found:
        assert_close(found[name], reference[name], 1e-4)


@pytest.mark.slow
def test_with_statistics_of_their_own_shares_both_backends_agree():
    ours = run_on("tensorflow", SCRIPT, "2", "shares")
    theirs = run_on("jax", SCRIPT, "2", "shares")
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert_close(theirs[name], ours[name], 1e-4)
    whole = run_on("tensorflow", SCRIPT, "1", "shares")
    apart = [np.abs(ours[name] - whole[name]).max() for name in ours if "/state/stats/" in name]
    assert len(apart) > 10
    assert max(apart) > 1e-4
