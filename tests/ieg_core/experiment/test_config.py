# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.config import Config, from_dict, to_dict
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import METHODS
from ieg_core.experiment.overrides import override, settable_keys
from ieg_core.recipes import build as recipes


@pytest.fixture
def l2r() -> Config:
    return recipes.build_config(parse("digits_uniform_0.8"), "l2r")


@pytest.mark.parametrize(
    ("family", "method"),
    [
        pytest.param(family, method, id=f"{family.name}-{method}")
        for family in recipes.FAMILIES.values()
        for method in METHODS
        if family.takes(method) and not family.choices  # those: test_tuned.py
    ],
)
def test_every_recipe_survives_json(family, method):
    base = family.bases[0]
    name = f"{base}_imbal_0.02" if family.name.startswith("longtail") else f"{base}_uniform_0.4"
    config = recipes.build_config(parse(name), method, recipe=family.name)
    written = to_dict(config)
    assert from_dict(json.loads(json.dumps(written))) == config
    assert "centered_pseudo_labels" not in written["method_settings"]  # off, and not written


def test_a_setting_added_later_is_written_only_with_another_value():
    plain = recipes.build_config(parse("digits_uniform_0.8"), "ieg")
    centered = override(plain, ["method.centered_pseudo_labels=true"])
    written = to_dict(centered)
    assert from_dict(written) == centered
    assert written["method_settings"].pop("centered_pseudo_labels") is True
    assert written == to_dict(plain)


def test_overrides_are_typed_and_reach_nested_settings(l2r):
    changed = override(
        l2r, ["optimizer.learning_rate=0.05", "method.lookahead_lr=0.2", "batch_size=50"]
    )
    assert changed.optimizer.learning_rate == 0.05
    assert changed.method_settings.lookahead_lr == 0.2
    assert changed.batch_size == 50
    assert (
        dataclasses.replace(
            changed,
            optimizer=l2r.optimizer,
            method_settings=l2r.method_settings,
            batch_size=100,
        )
        == l2r
    )


def test_a_length_replaces_the_one_that_was_there(l2r):
    schedule = override(l2r, ["schedule.num_epochs=3"]).schedule
    assert (schedule.num_steps, schedule.num_epochs, schedule.num_cycles) == (0, 3, 0)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        pytest.param("optimizer.learning_rte=1", "optimizer.learning_rate", id="near-name"),
        pytest.param("batch_size=many", "a whole number", id="wrong-type"),
        pytest.param("augmentation.flip=maybe", "true or false", id="wrong-bool"),
        pytest.param("batch_size", "key=value", id="no-equals"),
        pytest.param("batch_size=0", "at least 1, got 0", id="out-of-range"),
        pytest.param("optimizer.learning_rate=nan", "finite", id="nan"),
        pytest.param("optimizer.learning_rate=inf", "finite", id="infinite"),
        pytest.param("optimizer.momentum=1", r"\[0, 1\)", id="momentum"),
        pytest.param("schedule.name=cosin", "'cosine'", id="schedule"),
        pytest.param("seed=3", "unknown setting 'seed': expected SEEDS=…", id="not-a-setting"),
        pytest.param("method.tau=1", "of l2r: expected it with logit_adjustment;", id="of-another"),
        # Only NETWORK, too, gives a network its weight decay, and refuses one that is not trained.
        pytest.param(
            "network=efficientnet-lite0", "expected NETWORK=…, or --network", id="network"
        ),
        pytest.param("precision=float16", "bfloat16", id="precision"),
        pytest.param("schedule.num_cycles=3", "cosine_restarts", id="cycles"),
        pytest.param(
            "schedule.name=step", r"such as schedule\.boundary_fractions=0\.5,", id="step"
        ),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(l2r, assignment, message):
    with pytest.raises(UserError, match=message) as caught:
        override(l2r, [assignment])
    assert "\n" not in str(caught.value)


def test_a_step_schedule_takes_its_boundaries_in_the_same_command(l2r):
    changed = override(l2r, ["schedule.name=step", "schedule.boundary_fractions=0.5,0.75"])
    assert changed.schedule.boundary_fractions == (0.5, 0.75)


def test_a_method_without_a_probe_refuses_one():
    config = recipes.build_config(parse("digits"), "supervised")
    with pytest.raises(UserError, match="uses no probe"):
        override(config, ["probe_per_class=5"])


def test_a_method_with_a_probe_needs_one(l2r):
    with pytest.raises(UserError, match="probe_per_class must be above 0"):
        override(l2r, ["probe_per_class=0"])


def test_settable_keys_are_all_settable(l2r):
    for key, value in settable_keys(l2r).items():
        if key not in ("schedule.num_epochs", "schedule.num_cycles"):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert override(l2r, [f"{key}={text}"]) == l2r


@pytest.mark.parametrize(
    ("spec", "accelerator", "family"),
    [
        ("digits_uniform_0.2", True, "digits"),
        ("cifar10_uniform_0.2", False, "cifar_cpu"),
        ("fashion_mnist_uniform_0.2", False, "fashion_mnist"),
        ("fashion_mnist_uniform_0.2", True, "fashion_mnist"),
        ("cifar10_uniform_0.2", True, "cifar"),
        ("cifar100_imbal_0.02", True, "longtail"),
        ("cifar100_imbal_0.02_0.2", True, "longtail_noise"),
        ("folder_uniform_0.2", False, "folder"),
        ("webvisionmini", True, "webvision"),
    ],
)
def test_the_family_follows_data_and_device(spec, accelerator, family):
    assert recipes.default_family(parse(spec), accelerator) == family


@pytest.mark.parametrize(
    ("size", "network", "pad", "strong", "cutout"),
    [
        (8, "preact8", 1, "digits", 3),
        (32, "resnet11", 2, "autoaugment", 16),
        (96, "resnet11", 6, "autoaugment", 48),
        (224, "resnet18", 0, "autoaugment_imagenet", 112),
    ],
)
def test_network_and_views_of_ones_own_images_go_by_their_size(size, network, pad, strong, cutout):
    config = recipes.build_config(parse("folder"), "ieg", image_size=size)
    assert (config.network, config.images.size) == (network, size)
    views = config.augmentation
    assert (views.pad, views.strong, views.cutout) == (pad, strong, cutout)
    assert recipes.changed_settings(config, 50_000) == []
    changed = override(config, ["images.eval_sets=new, old", "images.channels=1"])
    assert changed.images.eval_sets == ("new", "old")
    assert recipes.changed_settings(changed, 50_000) == ["images.channels", "images.eval_sets"]


def test_images_are_no_setting_of_a_data_set_with_a_size_of_its_own(l2r):
    with pytest.raises(UserError, match=r"unknown setting 'images.size'"):
        override(l2r, ["images.size=16"])


def test_webvision_is_the_table_s_row():
    spec = parse("webvisionmini")
    ieg, fsr = (recipes.build_config(spec, method) for method in ("ieg", "fsr"))
    assert (ieg.network, ieg.batch_size, fsr.batch_size) == ("resnet50", 64, 128)
    assert ieg.method_settings.pseudo_label_loss_weight == 4
    assert ieg.method_settings.consistency_loss_weight == 8
    assert (fsr.method_settings.capacity, fsr.method_settings.start_epoch) == (5000, 20)
    assert fsr.method_settings.pseudo_label_loss_weight == 1
    assert (fsr.schedule.cycle_multiplier, fsr.schedule.warmup_epochs) == (2, 3)
    assert ieg.optimizer.weight_decay == fsr.optimizer.weight_decay == 1e-4
    assert ieg.images.eval_sets == ("imagenet",)


def test_a_family_refuses_foreign_data_and_names_the_fitting_ones():
    with pytest.raises(UserError, match="choose digits"):
        recipes.build_config(parse("digits_uniform_0.2"), "supervised", recipe="cifar")


def test_weight_decay_goes_with_the_network():
    spec = parse("cifar10_uniform_0.2")
    build = lambda network: recipes.build_config(spec, "supervised", network=network)  # noqa: E731
    assert build("resnet29").optimizer.weight_decay == 2e-4
    assert build("wrn28-10").optimizer.weight_decay == 5e-4
