# SPDX-License-Identifier: Apache-2.0
import json
import zipfile

import numpy as np
import pytest

from ieg_core.host.files import write_bytes_atomic
from ieg_core.report.write import write_report
from ieg_core.store import arrays, layout, leases, record, records
from ieg_core.store.model_file import ModelFacts, write_facts
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from ieg_core.training.checkpoint import Progress, save_checkpoint
from scripts import chaos
from tests.records import example, put_json

READERS = (write_report, chaos.read_status, chaos.read_estimate, chaos.read_leases)


def finish(root, record, accuracy):
    """Writes what a finished trial leaves behind."""
    folder = layout.trial_folder(root, record.trial)
    rows = [{"step": 10, "accuracy": accuracy, "accuracy_ema": accuracy, "loss": 1.0}]
    curves = {"training": [{"step": 10, "epoch": 0.1, "loss": 2.0}], "evaluations": rows}
    with leases.owned(folder) as lease:
        state = {"ema": [np.arange(6.0)], "step": np.array(10)}
        save_checkpoint(lease, state, Progress(record.trial, 10, 1, 1, 1.0, curves))
    example(records.ProgressRecord, step=10, num_steps=10).write(folder)
    records.CurvesRecord(**curves).write(folder)
    training = example(records.TrainingRecord, steps=10, device="CPU", threads=1)
    training.write(folder)
    known = vars(training) | vars(record)
    names = {each for each in records.ResultRecord.__dataclass_fields__ if each in known}
    example(
        records.ResultRecord,
        **{name: known[name] for name in names},
        accuracy_ema_last=accuracy,
        run_directory=layout.relative_trial(record.trial),
    ).write(folder)
    matrix = {"confusion_ema_last": np.eye(10, dtype=np.int64)}
    write_bytes_atomic(folder / layout.MATRICES, arrays.encode(matrix))
    with zipfile.ZipFile(folder / layout.MODEL, "w") as archive:
        archive.writestr("config.json", json.dumps({"a": 1}))
    write_facts(folder / layout.MODEL, ModelFacts(("a", "b"), (8, 8, 1)))


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
