# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import METHODS
from ieg_core.recipes import build
from ieg_core.recipes.family import Published


@pytest.mark.parametrize(
    ("dataset", "recipe", "smoothing"),
    [
        ("cifar10_imbal_0.02", "longtail", 0.1),
        ("cifar10_imbal_0.02_0.2", "longtail_noise", 0.1),
        ("digits_imbal_0.1", "digits", 0.1),
        ("digits_imbal_0.1_0.2", "digits", 0.0),
    ],
)
def test_on_a_long_tail_every_method_that_smooths_labels_smooths_them_as_much(
    dataset, recipe, smoothing
):
    for method in METHODS:
        if METHODS[method].needs_teacher:
            continue
        settings = build.build_config(parse(dataset), method, recipe=recipe).method_settings
        assert getattr(settings, "label_smoothing", smoothing) == smoothing, method


def test_pure_imbalance_changes_fsr_in_every_family():
    tail, noisy_tail = parse("digits_imbal_0.1"), parse("digits_imbal_0.1_0.2")
    fsr, noisy_fsr = (build.build_config(s, "fsr").method_settings for s in (tail, noisy_tail))
    assert (fsr.weighting, fsr.mixup, fsr.label_smoothing) == ("shift", False, 0.1)
    assert (noisy_fsr.weighting, noisy_fsr.mixup) == ("clip", True)
    assert fsr.capacity == noisy_fsr.capacity == 200
    ieg, noisy_ieg = (build.build_config(s, "ieg").method_settings for s in (tail, noisy_tail))
    assert ieg == noisy_ieg


@pytest.mark.parametrize("name", build.FAMILIES)
def test_a_family_is_consistent(name):
    family = build.FAMILIES[name]
    assert parse(family.example).base in family.bases
    for figure in family.figures:
        assert parse(figure.dataset).base in family.bases, figure
        assert figure.network in (family.network, *family.other_networks), figure
    methods = {*family.settings, *family.schedules, *family.batch_sizes}
    # A tuned family has settings for what was tuned alone.
    for method in family.choices[family.example] if family.choices else methods:
        build.build_config(parse(family.example), method, recipe=name)


def test_dictionary_sizes_fit_the_classes_unless_they_were_set():
    config = build.build_config(parse("folder"), "fsr")
    fitted = build.fit_to_classes(config, 7, ["optimizer.momentum=0.5"]).method_settings
    assert (fitted.capacity, fitted.dictionary_batch_size) == (1995, 196)
    fitted = build.fit_to_classes(config, 7, [" method.capacity = 2000"]).method_settings
    assert (fitted.capacity, fitted.dictionary_batch_size) == (2000, 196)
    fitted = build.fit_to_classes(config, 3000, []).method_settings
    assert (fitted.capacity, fitted.dictionary_batch_size) == (3000, 3000)
    digits = build.build_config(parse("digits"), "fsr")
    assert build.fit_to_classes(digits, 7, []) is digits
    plain = build.build_config(parse("folder"), "supervised")
    assert build.fit_to_classes(plain, 7, []) == plain


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("resnet29", 2e-4),
        ("resnet29-released", 2e-4),
        ("resnet47", 2e-4),
        ("resnet32-released", 5e-4),
        ("wrn28-10", 5e-4),
        ("resnet18", 1e-4),
        ("resnet50-released", 1e-4),
    ],
)
def test_the_weight_decay_is_that_of_the_networks_family(network, expected):
    assert build.weight_decay(network) == expected


def test_a_figure_is_displayed_with_its_deviation():
    figure = Published("cifar10", "ieg", "resnet29", 0, 92.0, 0.3, "a paper")
    assert figure.text == "92.0 ± 0.3"
    assert dataclasses.replace(figure, source="recalled", deviation=None).text == "92.0 (recalled)"


@pytest.mark.parametrize(
    ("method", "recipe", "network", "message"),
    [
        ("ieg", "features", "", "'ieg' trains a network, .*choose supervised, forward, retrain"),
        ("supervised", "", "efficientnet-lite2", "is not trained itself: use FEATURES=efficientn"),
        ("forward", "features", "resnet29", "unknown features 'resnet29'"),
    ],
)
def test_heads_and_networks_are_not_confused(method, recipe, network, message):
    with pytest.raises(UserError, match=message):
        build.build_config(parse("cifar10"), method, recipe=recipe, network=network)


def test_a_head_is_its_recipe_without_changes():
    config = build.build_config(
        parse("cifar10"), "retrain", recipe="features", network="efficientnet-lite2"
    )
    assert build.recipe_of(config) == config
    assert config.head == build.FAMILIES["features"].head
