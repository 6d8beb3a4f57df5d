# SPDX-License-Identifier: Apache-2.0
"""Planning a sweep over one's own images and with one's own network."""

from dataclasses import replace

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.host.files import read_json
from ieg_core.recipes.build import build_config, fit_to_examples
from ieg_core.recipes.features import FEATURES
from ieg_core.store.layout import read_planned
from ieg_core.sweep.plan import plan
from ieg_core.sweep.request import SweepRequest
from tests.ieg_core.data.trees import write_tree


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

    monkeypatch.setattr("ieg_core.sweep.plan.FEATURES", replace(FEATURES, bases=("folder",)))
    photos = {"settings": ("images.size=32",)}
    assert advised(**photos)
    assert not advised()  # 8 pixels
    assert not advised(**photos, accelerator=True)
    assert not advised(**photos, network="resnet11")
