# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import numpy as np
import pytest

from ieg_core.data.label_set import load_label_set
from ieg_core.errors import UserError
from ieg_core.store import layout
from ieg_core.store.arrays import encode
from ieg_core.store.layout import read_planned
from ieg_core.store.records import TrialRecord
from ieg_core.sweep.plan import configs, plan
from ieg_core.sweep.request import SweepRequest
from tests.records import put, put_json


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
        ("method.teacher=probe_only", "'probe_only', which judges no noisy label"),
        ("method.teacher=retrain", "'retrain', which needs a teacher itself"),
        ("method.teacher=iegg", "unknown method 'iegg': did you mean 'ieg'"),
    ],
)
def test_a_retraining_names_its_teacher(setting, message):
    with pytest.raises(UserError, match=message):
        configs(request(setting, methods=("retrain",)))
    (planned,) = configs(request("method.teacher=fsr", methods=("retrain",)))
    assert planned[1].method_settings.taught_by == "fsr"


def test_a_retraining_learns_from_the_same_request_s_finished_run(tmp_path):
    asked = SweepRequest(
        "digits_uniform_0.4", methods=("fsr",), steps=90, results=str(tmp_path),
        settings=("method.teacher=fsr", "method.mixup_alpha=0", "method.start_epoch=3"),
    )  # fmt: skip
    student = replace(asked, methods=("retrain", "fsr"))
    unfinished = r"no finished run digits_uniform_0.4-fsr-seed0-\w+ to .* DATASET=.* STEPS=90 SET="
    with pytest.raises(UserError, match=unfinished) as told:
        plan(student)
    assert str(told.value).endswith("SET=method.start_epoch=3)")
    # A run of another length is not it.
    for steps in (90, 60):
        request = replace(asked, steps=steps, settings=("method.start_epoch=3",))
        (name,) = plan(request).trials
        record = read_planned(tmp_path, name)
        taught = load_label_set(tmp_path / "label_sets" / record.label_set)
        q = np.full((len(taught.noisy_labels), 10), steps / 900, np.float32)
        put(tmp_path / "trials" / name / "result.json")
        (tmp_path / "trials" / name / layout.EXAMPLES).write_bytes(
            encode({"label_posterior": q, "visits": np.ones(len(q), np.int32)})
        )
    made = plan(student)
    records = {each.method: each for each in (read_planned(tmp_path, t) for t in made.trials)}
    assert f"labels are the posterior of {records['fsr'].trial}" in made.notes[0]
    used = load_label_set(tmp_path / "label_sets" / records["retrain"].label_set)
    assert (used.soft_labels == np.float32(0.1)).all()
    assert used.manifest.soft_labels_of == records["fsr"].trial
    assert plan(student).trials == made.trials


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
