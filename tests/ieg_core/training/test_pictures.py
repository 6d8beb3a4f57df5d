# SPDX-License-Identifier: Apache-2.0
import io
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.open import open_source
from ieg_core.experiment.config import ImagesConfig
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.recipes import build
from ieg_core.training.pictures import first_views
from ieg_core.training.step_draws import step_draws
from tests.ieg_core.data.trees import write_tree

WEAK, STRONG, PROBE = "train/weak_view", "train/strong_view", "train/probe_view"


def prepared(config, source, folder):
    return prepare_label_set(
        parse(config.dataset),
        seed=0,
        probe_per_class=config.probe_per_class,
        source=source,
        label_sets_dir=folder,
    )


def test_the_first_views_are_those_of_the_first_step(tmp_path, monkeypatch):
    config = build.build_config(parse("digits_uniform_0.4"), "supervised")
    source = open_source("digits", Path("data"))
    label_set = prepared(config, source, tmp_path)
    (encoded,) = first_views(config, label_set, source).values()

    def no_such_device(name):
        raise RuntimeError(name)

    monkeypatch.setattr(keras, "device", no_such_device)
    assert list(first_views(config, label_set, source).values()) == [encoded]
    sheet = np.asarray(Image.open(io.BytesIO(encoded)))
    drawn, pad = step_draws(config, label_set, 0), config.augmentation.pad
    for place in range(16):
        image = np.pad(source.train_images(drawn["ids"][place : place + 1])[0, :, :, 0], pad)
        y, x = drawn["view_offset_y"][place], drawn["view_offset_x"][place]
        crop = image[y : y + 8, x : x + 8]
        if drawn["view_flip"][place]:
            crop = crop[:, ::-1]
        row, column = divmod(place, 8)
        tile = sheet[34 * row : 34 * row + 32 : 4, 34 * column : 34 * column + 32 : 4, 0]
        assert (tile == crop).all(), place


@pytest.mark.parametrize(
    ("method", "tags"),
    [
        ("supervised_strong", {STRONG}),
        ("probe_only", {PROBE}),
        ("fsr", {WEAK, PROBE}),
        ("ieg", {WEAK, STRONG, PROBE}),
    ],
)
def test_each_method_shows_the_views_that_it_looks_at(method, tags, tmp_path):
    counts = {"train": 16, "test": 3, "probe": 2}
    tree = write_tree(tmp_path / "data", counts, kind="jpg", size=(130, 110))
    config = build.build_config(parse("folder"), method, image_size=100)
    config = override(config, ["batch_size=6"])
    if method == "fsr":
        config = override(config, ["method.capacity=12", "method.dictionary_batch_size=3"])
    source = open_source("folder", tree, ImagesConfig(size=100))  # read batch by batch
    views = first_views(config, prepared(config, source, tmp_path / "label_sets"), source)
    assert views.keys() == tags
    sizes = {tag: Image.open(io.BytesIO(encoded)).size for tag, encoded in views.items()}
    assert sizes.pop(PROBE, None) == (
        None if PROBE not in tags else ((3 if method == "fsr" else 6) * 66 - 2, 64)
    )
    assert set(sizes.values()) <= {(6 * 66 - 2, 64)}
    if method == "ieg":
        assert views[WEAK] != views[STRONG]
