# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from ieg_core.data.label_set import LabelSet
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.recipes import build
from ieg_core.training.step_draws import device_data, step_draws


@pytest.fixture
def label_set() -> LabelSet:
    labels = np.repeat(np.arange(10, dtype=np.int32), 30)
    ids = np.arange(300)
    return LabelSet(
        name="",
        spec=parse("cifar10"),
        seed=0,
        num_classes=10,
        class_names=(),
        image_shape=(32, 32, 3),
        noisy_labels=labels,
        clean_labels=labels,
        train_ids=ids[ids % 30 >= 10],
        probe_ids=ids[ids % 30 < 10],
        test_labels=labels,
        digest="",
    )


@pytest.mark.parametrize(("method", "prefix"), [("ieg", "strong_"), ("supervised_strong", "view_")])
def test_a_weak_strong_view_is_another_weak_view(method, prefix, label_set):
    plain = build.build_config(parse("cifar10"), method, recipe="cifar")
    weak = override(plain, ["augmentation.strong=weak", "augmentation.pad=3"])
    drawn = step_draws(weak, label_set, 7)
    names = {name for name in drawn if name.startswith(prefix)}
    assert names == {f"{prefix}{name}" for name in ("offset_y", "offset_x", "flip")}
    assert drawn[f"{prefix}offset_y"].max() == 6
    if method == "ieg":
        assert (drawn["view_offset_y"] != drawn["strong_offset_y"]).any()
    assert f"{prefix}affine" in step_draws(plain, label_set, 7)


def test_the_mixing_of_a_retraining_has_an_alpha_of_its_own(label_set):
    def coefficients(method, *settings):
        config = override(build.build_config(parse("cifar10"), method, recipe="cifar"), settings)
        return step_draws(config, label_set, 7)["mix_coefficients"]

    plain = coefficients("mixup")
    np.testing.assert_array_equal(coefficients("retrain", "method.mixup_alpha=0.5"), plain)
    assert coefficients("retrain").mean() < plain.mean() < 1
    assert (coefficients("retrain", "method.mixup_alpha=0") == 1).all()


def test_a_retraining_sees_soft_labels_and_no_clean_label_of_the_noisy_set(label_set):
    q = np.random.default_rng(0).dirichlet(np.ones(10), 300).astype(np.float32)
    config = build.build_config(parse("cifar10"), "retrain", recipe="cifar")
    taught = dataclasses.replace(label_set, soft_labels=q)
    permuted = label_set.clean_labels.copy()
    permuted[label_set.train_ids] = permuted[label_set.train_ids][::-1]
    other = dataclasses.replace(taught, clean_labels=permuted)
    for one, two in (
        (device_data(None, taught), device_data(None, other)),
        (step_draws(config, taught, 3), step_draws(config, other, 3)),
    ):
        assert one.keys() == two.keys()
        assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert device_data(None, taught)["soft_labels"] is q
    assert "soft_labels" not in device_data(None, label_set)
