# SPDX-License-Identifier: Apache-2.0
import subprocess

from ieg_core.store.records import RatesRecord, TrialRecord
from ieg_core.sweep import estimate
from ieg_core.sweep.slots import Slot
from tests.records import example


def test_without_a_measured_step_one_is_assumed_and_told(tmp_path, monkeypatch, capsys):
    def run(command, *, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr("subprocess.run", run)
    record = example(TrialRecord, network="wrn28-10")
    assert estimate._measure(tmp_path, record, Slot(threads=2), "key") == 1 / 180
    assert "a training step of wrn28-10 on 2 threads could not be" in capsys.readouterr().err
    assert not RatesRecord.exists(tmp_path)
