# SPDX-License-Identifier: Apache-2.0
import dataclasses
import types

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment import methods as experiment_methods
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import METHODS, MethodSpec, SupervisedSettings
from ieg_core.methods import registry
from ieg_core.methods.fsr import FSR
from ieg_core.methods.method import Method
from ieg_core.methods.supervised import MIXUP
from ieg_core.recipes import build
from ieg_core.training.measure import synthetic_label_set


def test_an_entry_names_its_implementation():
    assert registry.find("fsr") is FSR
    assert registry.find("mixup") is MIXUP
    assert all(isinstance(registry.find(name), Method) for name in METHODS)


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="'fsr'"):
        registry.find("fsrr")


def test_an_entry_that_names_no_method_is_refused(monkeypatch):
    bad = MethodSpec("supervised:PER_EXAMPLE", SupervisedSettings, "none", 1.0, "")
    entries = types.MappingProxyType({**METHODS, "bad": bad})
    monkeypatch.setattr(experiment_methods, "METHODS", entries)
    with pytest.raises(TypeError, match="supervised:PER_EXAMPLE: expected a Method, got tuple"):
        registry.find("bad")


@pytest.mark.parametrize("name", METHODS)
def test_the_declared_trusted_source_is_what_settings_and_state_hold(name):
    spec, config = METHODS[name], build.build_config(parse("digits"), name)
    capacity = config.method_settings.dictionary_capacity
    assert (capacity > 0) == spec.uses_dictionary
    assert (config.probe_per_class > 0) == spec.uses_probe
    state = registry.find(name).init(config, synthetic_label_set(config, 10, (8, 8, 1)))
    assert ("dictionary" in state) == spec.uses_dictionary
    if spec.uses_dictionary:
        assert state["dictionary"].shape == (capacity,)
    config = dataclasses.replace(config, batch_size=37)
    trusted_size = config.method_settings.trusted_batch_size(config.batch_size)
    assert trusted_size == (100 if spec.uses_dictionary else 37)
