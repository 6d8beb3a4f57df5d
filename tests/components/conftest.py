# SPDX-License-Identifier: Apache-2.0
import contextlib

import pytest

from ieg_core.sweep import worker


@pytest.fixture(autouse=True)
def _children_in_this_process(monkeypatch):
    """Runs what a worker's child would, without starting one."""

    def run(command, environment, log, echo):
        with (
            log.open("a") as file,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(file),
        ):
            code = worker.main(command[command.index("ieg_core.sweep.worker") + 1 :])
        return worker._Ended(code, 0, "")

    monkeypatch.setattr(worker, "_run", run)
