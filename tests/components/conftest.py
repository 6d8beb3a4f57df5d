# SPDX-License-Identifier: Apache-2.0
import pytest

from ieg_core.sweep import worker
from tests.components.calls import run_child


@pytest.fixture(autouse=True)
def _children_in_this_process(monkeypatch):
    monkeypatch.setattr(worker, "_run", run_child)
