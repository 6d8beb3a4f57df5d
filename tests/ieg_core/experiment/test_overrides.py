# SPDX-License-Identifier: Apache-2.0
"""What holds for every override of every configuration."""

import functools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ieg_core.errors import UserError
from ieg_core.experiment.config import LENGTH_KEYS, Config
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.methods import METHODS
from ieg_core.experiment.overrides import override, settable_keys
from ieg_core.recipes import build


@functools.cache
def config_of(family: str, method: str) -> Config:
    base = build.FAMILIES[family].bases[0]
    name = f"{base}_imbal_0.02" if family.startswith("longtail") else f"{base}_uniform_0.4"
    return build.build_config(parse(name), method, recipe=family)


CONFIG = st.sampled_from(
    [
        (name, each)
        for name, family in build.FAMILIES.items()
        for each in METHODS
        if family.takes(each) and not family.choices  # those: test_tuned.py
    ]
).map(lambda pair: config_of(*pair))
TEXT = st.text(max_size=12)
NUMBER = st.one_of(st.integers(), st.floats(), st.floats(0, 1)).map(str)


def spelled(value: object) -> str:
    """Writes a value as one would on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def like(key: str, value: object) -> st.SearchStrategy:
    """Draws other values of a setting's type."""
    if key == "images.eval_sets":
        return st.lists(st.sampled_from(["photos", "my drawings", "ä"]), max_size=3).map(tuple)
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(-2, 200)
    if isinstance(value, float):
        return st.one_of(st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False))
    if isinstance(value, tuple):
        return st.lists(st.floats(0, 1), max_size=3).map(tuple)
    return st.just(value)


@given(CONFIG)
def test_a_configuration_is_what_its_own_settings_make_it(config):
    settings = settable_keys(config)
    assert (
        override(config, [f"{key}={spelled(value)}" for key, value in settings.items()]) == config
    )


@given(st.data(), CONFIG)
def test_an_override_sets_its_value_with_its_type_and_nothing_else(data, config):
    before = settable_keys(config)
    key = data.draw(st.sampled_from(list(before)))
    value = data.draw(like(key, before[key]))
    try:
        changed = override(config, [f" {key} = {spelled(value)} "])
    except UserError:  # out of range, or with no sense beside the other settings
        return
    after = settable_keys(changed)
    assert (type(after[key]), after[key]) == (type(value), value)
    others = before.keys() - {key} - set(LENGTH_KEYS if key in LENGTH_KEYS else ())
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    again = [f"{name}={spelled(each)}" for name, each in after.items()]
    assert override(config, again) == changed


@given(CONFIG, TEXT, TEXT)
def test_a_key_that_there_is_not_is_a_mistake_of_the_users(config, key, value):
    assume(key.partition("=")[0].strip() not in settable_keys(config))
    with pytest.raises(UserError, match="unknown setting") as caught:
        override(config, [f"{key}={value}"])
    assert "\n" not in str(caught.value)


@given(st.data(), CONFIG, st.one_of(TEXT, NUMBER))
def test_any_value_is_taken_or_a_mistake_of_the_users(data, config, value):
    key = data.draw(st.sampled_from(list(settable_keys(config))))
    try:
        changed = override(config, [f"{key}={value}"])
    except UserError as error:
        message = str(error)
    else:
        assert isinstance(changed, Config)
        return
    assert "\n" not in message


def test_a_head_takes_no_setting_that_its_training_ignores():
    plain, retrain = (config_of("features", method) for method in ("supervised", "retrain"))
    of_heads = ["head.hidden", "head.learning_rate", "head.weight_decay", "batch_size",
                "evaluations", "validation_fraction",
                "schedule.num_steps", "schedule.num_epochs"]  # fmt: skip
    assert sorted(settable_keys(plain)) == sorted(of_heads)
    assert sorted(settable_keys(retrain)) == sorted([*of_heads, "method.mixup_alpha"])
    assert override(retrain, ["method.mixup_alpha=0"]).method_settings.mixup_alpha == 0
    with pytest.raises(UserError, match=r"unknown setting 'optimizer.momentum'"):
        override(plain, ["optimizer.momentum=0.5"])
    with pytest.raises(UserError, match=r"head.hidden must be at least 0"):
        override(plain, ["head.hidden=-1"])
