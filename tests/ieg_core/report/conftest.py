# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from tests.ieg_core.report.roots import Builder, build_results_root


@pytest.fixture
def results_root(tmp_path: Path) -> Builder:
    """Returns a function that builds a results root under the test's folder."""
    return lambda **options: build_results_root(tmp_path / "runs", **options)


@pytest.fixture
def results_root_at(tmp_path: Path) -> Builder:
    """Returns a function that builds a results root in a folder of that name."""
    return lambda name, **options: build_results_root(tmp_path / name, **options)
