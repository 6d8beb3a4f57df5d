# SPDX-License-Identifier: Apache-2.0
"""The reference of settings is what the dataclasses say."""

import dataclasses
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def writer() -> dict:
    return runpy.run_path(str(ROOT / "scripts" / "write_settings.py"))


def test_the_page_is_up_to_date(writer):
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == writer["render"](), "run .venv/bin/python scripts/write_settings.py"


def test_a_constant_is_replaced_by_its_value(writer):
    assert writer["with_values"]("One of SCHEDULES, MSE.").startswith(
        "One of `cosine`, `cosine_restarts`"
    )
    assert writer["with_values"]("up to LARGEST_IN_MEMORY, MSE") == "up to 96, MSE"
    assert " STRONG_POLICIES" not in writer["render"]()


def test_a_field_without_a_word_is_refused(writer):
    @dataclasses.dataclass(frozen=True)
    class Silent:
        """Says nothing.

        Attributes:
          told: This one is told.
        """

        told: int = 1
        forgotten: int = 2

    with pytest.raises(ValueError, match="forgotten"):
        list(writer["rows"](Silent, ""))
