# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ieg_core
from ieg_core.data.label_set import load_label_set
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.host.files import read_json
from ieg_core.recipes.build import build_config, fit_to_examples
from ieg_core.recipes.features import FEATURES
from ieg_core.store import layout
from ieg_core.store.arrays import encode
from ieg_core.store.layout import read_planned
from ieg_core.store.records import TrialRecord
from ieg_core.sweep import tuning
from ieg_core.sweep.plan import plan, record_trials
from ieg_core.sweep.request import SweepRequest
from tests.ieg_core.data.trees import write_tree
from tests.records import put, put_json


def finish(root, name, belief):
    """Writes what a planned trial of digits leaves behind that believes the same of all labels."""
    taught = load_label_set(root / "label_sets" / read_planned(root, name).label_set)
    q = np.full((len(taught.noisy_labels), 10), belief, np.float32)
    put(root / "trials" / name / "result.json")
    (root / "trials" / name / layout.EXAMPLES).write_bytes(
        encode({"label_posterior": q, "visits": np.ones(len(q), np.int32)})
    )


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
        finish(tmp_path, name, steps / 900)
    made = plan(student)
    records = {each.method: each for each in (read_planned(tmp_path, t) for t in made.trials)}
    assert f"labels are the posterior of {records['fsr'].trial}" in made.notes[0]
    used = load_label_set(tmp_path / "label_sets" / records["retrain"].label_set)
    assert (used.soft_labels == np.float32(0.1)).all()
    assert used.manifest.soft_labels_of == records["fsr"].trial
    assert plan(student).trials == made.trials


def test_what_a_tuning_varies_is_the_student_s_and_not_its_teacher_s(tmp_path):
    asked = SweepRequest(
        "digits_uniform_0.4", methods=("retrain",), steps=90, results=str(tmp_path),
        settings=("method.teacher=fsr",),
    )  # fmt: skip
    point = tuning.points(asked, 2, 0.2)[1]
    assert point.settings[0].startswith("optimizer.learning_rate=")
    with pytest.raises(UserError, match="no finished run") as told:
        record_trials([point.request], [point.teacher])
    assert str(told.value).endswith("STEPS=90 SET=validation_fraction=0.2)")
    teacher = replace(asked, methods=("fsr",), settings=("validation_fraction=0.2",))
    (name,) = plan(teacher).trials
    finish(tmp_path, name, 0.1)
    ((student,),), _ = record_trials([point.request], [point.teacher])
    used = load_label_set(tmp_path / "label_sets" / student.label_set)
    assert used.manifest.soft_labels_of == name
    assert len(used.validation_ids) == len(used.test_labels) > 0
    rate = student.config["optimizer"]["learning_rate"]
    assert point.settings[0] == f"optimizer.learning_rate={rate:g}"


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


def test_the_plan_notes_a_training_that_ends_before_its_method_begins(tmp_path):
    request = SweepRequest("digits", methods=("fsr", "mixup"), results=str(tmp_path))
    assert plan(request).notes == ()
    # The recipe's FSR begins in epoch 5, and 1,438 images are 14 steps an epoch.
    (note,) = plan(replace(request, steps=70)).notes
    assert note.startswith("fsr: 70 steps end before epoch 5, where it begins to weight examples")
    assert plan(replace(request, steps=71)).notes == ()


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
    wanted = SweepRequest("digits_uniform_0.4", methods=("supervised",), results=str(tmp_path))
    (trial,) = plan(wanted).trials
    path = TrialRecord.path(layout.trial_folder(tmp_path, trial))
    before = path.read_bytes()
    change(path)
    again = plan(wanted)
    assert again.trials == (trial,)
    assert [each.startswith(f"{path} {note}") for each in again.notes] == [True]
    assert path.is_dir() or path.read_bytes() == before
    assert path.is_dir() or plan(wanted).notes == ()


def test_planning_goes_down_and_comes_back_at_most_four_times(tmp_path):
    """Whoever follows a request through the code returns to plan.py that often for a new step.

    The functions of the package in the order of their first calls; and no call goes to a room
    above the caller's, which import contracts cannot see.
    """
    package = Path(ieg_core.__file__).parent
    contracts = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in contracts["tool"]["importlinter"]["contracts"]
        if contract.get("exhaustive")
    )
    floors = {room: -n for n, rooms in enumerate(layers) for room in rooms.split(" | ")}
    first_calls, climbs = {}, []

    def floor(file):
        return floors[file.split("/")[0].removesuffix(".py")]

    def file_of(frame):
        """Returns the file of the package in which a frame is, or which called it."""
        while frame and not frame.f_code.co_filename.startswith(f"{package}/"):
            frame = frame.f_back
        return frame and frame.f_code.co_filename.removeprefix(f"{package}/")

    def follow(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(f"{package}/"):
            file, caller = file_of(frame), file_of(frame.f_back)
            if frame.f_code.co_name[0] != "<":  # no comprehension
                first_calls.setdefault(frame.f_code, file)
            if caller and floor(file) > floor(caller):
                climbs.append((caller, frame.f_code.co_qualname))

    request = SweepRequest(
        "digits_uniform_0.4", methods=("supervised", "ieg"), results=str(tmp_path / "runs")
    )
    sys.setprofile(follow)
    try:
        plan(request)
    finally:
        sys.setprofile(None)
    files = [file for file, _ in itertools.groupby(first_calls.values())]
    assert files[0] == "sweep/plan.py"
    assert {"data/label_set.py", "recipes/build.py", "store/fingerprint.py"} <= set(files)
    assert files.count("sweep/plan.py") - 1 <= 4, files
    assert not climbs


# Planning a sweep over one's own images and with one's own network.


@pytest.fixture
def request_of(tmp_path):
    write_tree(tmp_path / "data", {"train": 40, "test": 3})

    def build(**changes):
        settings = changes.pop("settings", ())
        if not any(each.startswith("images.size=") for each in settings):
            settings = ("images.size=8", *settings)
        return SweepRequest(
            **{
                "dataset": "folder",
                "methods": ("fsr",),
                "data_dir": str(tmp_path / "data"),
                "results": str(tmp_path / "runs"),
                "settings": settings,
                **changes,
            }
        )

    return build


def planned(request, tmp_path):
    made = plan(request)
    return made, [read_planned(tmp_path / "runs", trial).settings for trial in made.trials]


def test_network_views_and_dictionary_go_by_the_data(request_of, tmp_path):
    made, (config,) = planned(request_of(), tmp_path)
    assert (config.network, config.augmentation.strong, config.images.size) == (
        "preact8",
        "digits",
        8,
    )
    # The recipe's 2,000 and 200, whole classes of three.
    settings = config.method_settings
    assert (settings.capacity, settings.dictionary_batch_size) == (1998, 198)
    probe, length = made.notes
    assert "there is no probe/" in probe
    assert length == (
        "120 images are few: batches of 60 instead of 100, 200 steps (100 epochs) instead of 1500; "
        "SET=batch_size=… and STEPS choose others"
    )
    assert (config.schedule.num_steps, config.batch_size) == (200, 60)
    record = read_json(tmp_path / "runs" / "trials" / made.trials[0] / "config.json")
    assert (record["noise_rate"], record["image_shape"], record["num_classes"]) == (
        None,
        [8, 8, 3],
        3,
    )


def test_what_was_asked_for_is_not_rounded(request_of):
    with pytest.raises(UserError, match=r"method.capacity must be a multiple of the 3 classes"):
        plan(request_of(settings=("method.capacity=100", "method.dictionary_batch_size=10")))


def test_each_noise_ratio_of_a_rehearsal_is_a_data_set(request_of, tmp_path):
    request = request_of(dataset="folder_uniform", noise_ratios=(0.2, 0.4), methods=("mixup",))
    _, configs = planned(request, tmp_path)
    assert {config.dataset for config in configs} == {"folder_uniform_0.2", "folder_uniform_0.4"}


def test_a_trial_is_named_by_its_networks_source(request_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = request_of(network="net_to_be_changed:build", methods=("supervised",))
    with pytest.raises(UserError, match="no module 'net_to_be_changed'"):
        plan(request)
    module = tmp_path / "net_to_be_changed.py"
    module.write_text("def build(num_classes, image_shape): ...\n")
    first = plan(request).trials
    assert plan(request).trials == first
    module.write_text("def build(num_classes, image_shape): return None\n")
    assert plan(request).trials != first


def test_other_images_are_another_label_set(request_of, tmp_path):
    first = plan(request_of()).trials
    assert plan(request_of(settings=("images.channels=1",))).trials != first
    (tmp_path / "data" / "train" / "bee" / "0000.png").unlink()
    assert plan(request_of()).trials != first
    assert len(list((tmp_path / "runs" / "label_sets").iterdir())) == 3


def test_only_what_nobody_chose_is_fitted_to_few_images(request_of, tmp_path):
    for chosen in ({"steps": 1500}, {"settings": ("schedule.num_steps=1500",)}):
        made, (config,) = planned(request_of(**chosen), tmp_path)
        assert config.schedule.num_steps == 1500
        assert "120 images are few: batches of 60 instead of 100; SET" in made.notes[1]
        record = read_planned(tmp_path / "runs", made.trials[0])
        assert record.recipe_steps == 200
        assert "batch_size" not in record.changed_settings
        assert record.data_dir == str(tmp_path / "data")


def test_enough_images_and_other_data_keep_their_recipe(request_of, tmp_path):
    made, (config,) = planned(request_of(steps=1500, settings=("batch_size=90",)), tmp_path)
    assert (config.schedule.num_steps, config.batch_size) == (1500, 90)
    assert not any("are few" in note for note in made.notes)
    for spec in ("digits_uniform_0.4", "cifar10_uniform_0.4"):
        config = build_config(parse(spec), "supervised")
        assert fit_to_examples(config, 150) is config
    config = build_config(parse("folder"), "supervised")
    assert fit_to_examples(config, 1500) == config
    assert fit_to_examples(config, 1499).schedule.num_steps == 1400


def test_features_are_recommended_for_photos_without_a_gpu(request_of, monkeypatch):
    def advised(**changes):
        return any(
            "try FEATURES=efficientnet-lite0" in note for note in plan(request_of(**changes)).notes
        )

    monkeypatch.setattr(
        "ieg_core.sweep.planning_notes.FEATURES", replace(FEATURES, bases=("folder",))
    )
    photos = {"settings": ("images.size=32",)}
    assert advised(**photos)
    assert not advised()  # 8 pixels
    assert not advised(**photos, accelerator=True)
    assert not advised(**photos, network="resnet11")
