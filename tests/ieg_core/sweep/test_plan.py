# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import numpy as np
import pytest

from ieg_core.data.label_set import load_label_set
from ieg_core.errors import UserError
from ieg_core.store import layout
from ieg_core.store.layout import read_planned
from ieg_core.store.records import TrialRecord
from ieg_core.sweep import plan as planning
from ieg_core.sweep.plan import configs, plan
from ieg_core.sweep.request import SweepRequest
from tests.records import put_json


def request(*settings, methods=("supervised", "l2r", "ieg")):
    return SweepRequest("digits_uniform_0.4", methods=methods, settings=settings)


def test_a_setting_goes_to_the_methods_that_have_it():
    found = {
        config.method: config
        for _, config in configs(
            request("method.pseudo_label_loss_weight=4", "probe_per_class=5", "batch_size=50")
        )
    }
    assert found["ieg"].method_settings.pseudo_label_loss_weight == 4
    assert [found[m].probe_per_class for m in ("supervised", "l2r", "ieg")] == [0, 5, 5]
    assert {config.batch_size for config in found.values()} == {50}


@pytest.mark.parametrize(
    ("setting", "methods", "message"),
    [
        ("method.pseudo_label_los_weight=4", ("ieg",), "did you mean"),
        ("method.capacity=100", ("supervised", "ieg"), "unknown setting"),
        ("probe_per_class=5", ("fsr",), "uses no probe"),
        ("probe_per_class", ("ieg", "fsr"), "key=value"),
    ],
)
def test_a_setting_that_none_of_them_has_is_refused(setting, methods, message):
    with pytest.raises(UserError, match=message):
        configs(request(setting, methods=methods))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_size=50", "'retrain' trains a head on features, .*SET=method.teacher=ieg"),
        ("method.teacher=probe_only", "'probe_only', which never sees the noisy labels"),
        ("method.teacher=iegg", "unknown method 'iegg': did you mean 'ieg'"),
    ],
)
def test_a_retraining_names_its_teacher(setting, message):
    with pytest.raises(UserError, match=message):
        configs(request(setting, methods=("retrain",)))
    (planned,) = configs(request("method.teacher=fsr", methods=("retrain",)))
    assert planned[1].method_settings.taught_by == "fsr"


def test_a_retraining_learns_from_the_labels_of_its_teacher(tmp_path, monkeypatch):
    made = request(methods=("fsr",))
    (name,) = plan(replace(made, results=str(tmp_path))).trials
    taught = load_label_set(tmp_path / "label_sets" / read_planned(tmp_path, name).label_set)
    q = np.full((len(taught.noisy_labels), 10), 0.1, np.float32)
    monkeypatch.setattr(planning, "find_teacher", lambda *_: tmp_path / "trials" / name)
    monkeypatch.setattr(planning, "soft_labels", lambda *_: (taught, q))
    student = plan(
        replace(
            request("method.teacher=fsr", methods=("retrain", "supervised")), results=str(tmp_path)
        )
    )
    assert f"labels are the posterior of {name}" in student.notes[0]
    records = [read_planned(tmp_path, trial) for trial in student.trials]
    used = {
        each.method: load_label_set(tmp_path / "label_sets" / each.label_set) for each in records
    }
    np.testing.assert_array_equal(used["retrain"].soft_labels, q)
    assert used["supervised"].soft_labels is None


def test_the_plan_notes_a_length_inside_a_cycle_and_a_short_probe(tmp_path):
    cycles = "schedule.name=cosine_restarts"
    made = plan(
        SweepRequest(
            "digits_imbal_0.02",
            methods=("supervised", "l2r", "ieg"),
            steps=40,
            settings=(cycles, "batch_size=30"),
            results=str(tmp_path),
        )
    )
    probe, whole, cut = made.notes
    assert probe.startswith("digits_imbal_0.02: 4 of 10 classes are too small for a probe of 10")
    assert whole.startswith("supervised: 40 steps end inside a cosine cycle")
    assert cut.startswith("l2r, ieg: 40 steps end inside a cosine cycle")
    # 399 and 321 examples are epochs of 13 and 10 steps, and cycles grow by a half.
    assert whole.endswith("STEPS=32 or 61 ends with one")
    assert cut.endswith("STEPS=25 or 47 ends with one")


def edit(path):
    record = json.loads(path.read_text())
    record["config"]["optimizer"]["learning_rate"] = 9.0
    put_json(path, record)  # with a digest that matches: only the name tells


def become_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (edit, "was damaged or edited; it has the planned settings again"),
        (lambda path: path.write_text("[]"), "was damaged or edited; it has the planned settings"),
        (become_a_folder, "is a folder: remove it and run again"),
    ],
)
def test_a_trial_whose_configuration_was_altered_is_told(tmp_path, change, note):
    wanted = replace(request(methods=("supervised",)), results=str(tmp_path))
    (trial,) = plan(wanted).trials
    path = TrialRecord.path(layout.trial_folder(tmp_path, trial))
    before = path.read_bytes()
    change(path)
    again = plan(wanted)
    assert again.trials == (trial,)
    assert [each.startswith(f"{path} {note}") for each in again.notes] == [True]
    assert path.is_dir() or path.read_bytes() == before
    assert path.is_dir() or plan(wanted).notes == ()
