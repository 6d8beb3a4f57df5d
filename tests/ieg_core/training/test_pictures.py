# SPDX-License-Identifier: Apache-2.0
import io
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from ieg_core import recipes
from ieg_core.config import ImagesConfig, override
from ieg_core.data import open_source, prepare_overlay
from ieg_core.spec import parse
from ieg_core.training.draws import step_draws
from ieg_core.training.pictures import first_views
from tests.ieg_core.data.trees import write_tree

WEAK, STRONG, PROBE = "train/weak_view", "train/strong_view", "train/probe_view"


def prepared(config, source, folder):
    return prepare_overlay(
        parse(config.dataset),
        seed=0,
        probe_per_class=config.probe_per_class,
        source=source,
        overlays_dir=folder,
    )


def test_the_first_views_are_those_of_the_first_step(tmp_path, monkeypatch):
    config = recipes.build_config(parse("digits_uniform_0.4"), "supervised")
    source = open_source("digits", Path("data"))
    overlay = prepared(config, source, tmp_path)
    (encoded,) = first_views(config, overlay, source).values()

    def no_such_device(name):
        raise RuntimeError(name)

    monkeypatch.setattr(keras, "device", no_such_device)
    assert list(first_views(config, overlay, source).values()) == [encoded]
    sheet = np.asarray(Image.open(io.BytesIO(encoded)))
    drawn, pad = step_draws(config, overlay, 0), config.augmentation.pad
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
    config = recipes.build_config(parse("folder"), method, image_size=100)
    config = override(config, ["batch_size=6"])
    if method == "fsr":
        config = override(config, ["method.capacity=12", "method.dictionary_batch_size=3"])
    source = open_source("folder", tree, ImagesConfig(size=100))  # read batch by batch
    views = first_views(config, prepared(config, source, tmp_path / "overlays"), source)
    assert views.keys() == tags
    sizes = {tag: Image.open(io.BytesIO(encoded)).size for tag, encoded in views.items()}
    assert sizes.pop(PROBE, None) == (
        None if PROBE not in tags else ((3 if method == "fsr" else 6) * 66 - 2, 64)
    )
    assert set(sizes.values()) <= {(6 * 66 - 2, 64)}
    if method == "ieg":
        assert views[WEAK] != views[STRONG]
