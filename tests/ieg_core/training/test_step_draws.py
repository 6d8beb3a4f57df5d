# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.data.label_set import LabelSet
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.recipes import build
from ieg_core.training.step_draws import step_draws


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
