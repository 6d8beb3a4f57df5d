# SPDX-License-Identifier: Apache-2.0
"""FSR's dictionary on digits, with the settings of every recipe that is meant for noise."""

from pathlib import Path

import pytest

from ieg_core.recipes import build
from tests.backends import run_on

SCRIPT = Path(__file__).parent / "purity.py"
FSR = {
    name: family.settings_of("fsr")
    for name, family in build.FAMILIES.items()
    if family.takes("fsr")
}
FAMILIES = [name for name, settings in FSR.items() if settings.weighting == "clip"]
STEPS = 84  # six epochs


def test_the_recipes_for_noise_mix():
    assert len(FAMILIES) == len(FSR) - 1
    assert all(FSR[name].mixup for name in FAMILIES)


def test_the_digits_recipe_finds_rightly_labeled_examples():
    found = run_on("tensorflow", SCRIPT, str(STEPS), "digits")
    assert found["random"] == pytest.approx(0.46, abs=0.03)
    assert found["first"] == pytest.approx(found["random"], abs=0.1)
    assert found["digits"] > found["random"] + 0.3


@pytest.mark.slow
def test_every_recipe_for_noise_finds_rightly_labeled_examples():
    found = run_on("tensorflow", SCRIPT, str(STEPS), *FAMILIES)
    for name in FAMILIES:
        assert found[name] > found["random"] + 0.3, name
