# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from ieg_core.report.write import write_report
from ieg_core.store import layout, record, records
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from scripts import chaos
from tests.records import finish, put_json

READERS = (write_report, chaos.read_status, chaos.read_estimate, chaos.read_leases)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    root = tmp_path_factory.mktemp("chaos") / "runs"
    request = SweepRequest(
        "digits_uniform_0.4", methods=("supervised",), seeds=(0, 1), steps=10, results=str(root)
    )
    for number, trial in enumerate(plan.plan(request).trials):
        finish(root, layout.read_planned(root, trial), 0.5 + number / 4)
    return chaos.Target(root, READERS)


@pytest.mark.parametrize(("name", "tries"), [("flips", 20), ("mutations", 40)])
def test_a_damaged_file_costs_its_own_trial_alone(target, name, tries):
    assert target.attack(chaos.ATTACKS[name], tries, seed=0).failures == []


def test_a_reader_that_says_nothing_is_found(target, monkeypatch):
    def improve(path, rng):
        put_json(path, json.loads(path.read_text()) | {"accuracy_ema_last": 0.99})

    def edit(path, rng):
        value = json.loads(path.read_text())
        path.write_text(json.dumps(value | {"accuracy_ema_last": 0.99}))

    results = [path for path in target.files if path.name == records.ResultRecord.NAME]
    monkeypatch.setattr(target, "files", results)
    assert target.attack([edit], 2, seed=0).failures == []
    failures = target.attack([improve], 2, seed=0).failures  # a forgery, which shows in the row
    assert ["other values of accuracy_ema_last" in each for each in failures] == [True, True]
    monkeypatch.setattr(record, "unseal", lambda value: value)
    assert len(target.attack([edit], 2, seed=0).failures) == 2


def test_a_reader_that_fails_is_found(target, monkeypatch):
    def fail(root, sweep):
        return json.loads(records.PlanRecord.path(layout.sweep_folder(root, sweep)).read_bytes())

    plans = [path for path in target.files if path.name == records.PlanRecord.NAME]
    monkeypatch.setattr(target, "files", plans)
    monkeypatch.setattr(target, "readers", (*READERS, fail))
    lines = []
    outcome = target.attack([chaos.truncate], 1, 0, lines.append)
    assert outcome.line == "0 of 1 survived"
    assert lines == list(outcome.failures)
    assert "fail: JSONDecodeError" in lines[0]
