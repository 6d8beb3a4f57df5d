# SPDX-License-Identifier: Apache-2.0
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.open import open_source
from ieg_core.experiment.config import ImagesConfig
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.recipes import build
from ieg_core.training import step_draws, streaming
from tests.backends import run_on
from tests.ieg_core.data.trees import NAMES, write_tree

SCRIPT = Path(__file__).parent / "fed_runs.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    counts = {"train": 16, "test": 3, "probe": 2, "photos": 2}
    return write_tree(tmp_path_factory.mktemp("data"), counts, kind="jpg", size=(130, 110))


@pytest.fixture(scope="module")
def source(tree):
    return open_source("folder", tree, ImagesConfig(size=100))


def config_of(method):
    config = build.build_config(parse("folder"), method, image_size=100)
    config = override(config, ["batch_size=6"])
    if method == "fsr":
        config = override(config, ["method.capacity=12", "method.dictionary_batch_size=3"])
    return config


@pytest.mark.parametrize(
    ("method", "views"),
    [
        ("supervised", {"view_": 6}),
        ("probe_only", {"probe_view_": 6}),
        ("l2r", {"view_": 6, "probe_view_": 6}),
        ("ieg", {"view_": 6, "strong_": 6, "probe_view_": 6}),
        ("fsr", {"view_": 6, "probe_view_": 3}),
    ],
)
def test_each_view_gets_the_images_that_were_drawn_for_it(method, views, source, tmp_path):
    config = config_of(method)
    label_set = prepare_label_set(
        parse("folder"),
        seed=0,
        probe_per_class=config.probe_per_class,
        source=source,
        label_sets_dir=tmp_path,
    )
    dictionary = np.arange(40, 28, -1) if method == "fsr" else None
    seen = []

    def crops(ids, cut):
        seen.append((np.asarray(ids), cut))
        return np.broadcast_to(
            np.asarray(ids, np.uint8)[:, None, None, None], (len(ids), 100, 100, 3)
        )

    shown = dataclasses.replace(source, crops=crops)
    drawn = streaming.stacked_draws(config, label_set, shown, dictionary, (4, 6), 3)
    assert {name for name in drawn if name.endswith("images")} == {f"{v}images" for v in views}
    for prefix, size in views.items():
        images = drawn[f"{prefix}images"]
        assert images.shape == (3, size, 100, 100, 3)
        for place, step in enumerate((4, 5)):
            plain = step_draws.step_draws(config, label_set, step)
            expected = plain["ids"] if prefix != "probe_view_" else plain.get("probe_ids")
            if expected is None:
                expected = dictionary[plain["probe_slots"]]
            assert images[place, :, 0, 0, 0].tolist() == expected.tolist()
        assert (images[2] == 0).all()  # the third step is not run
    # Every view of every step is cut by draws of its own.
    cuts = np.concatenate([cut for _, cut in seen])
    assert len(np.unique(cuts)) == cuts.size
    again = streaming.stacked_draws(config, label_set, shown, dictionary, (5, 6), 1)
    for prefix in views:
        np.testing.assert_array_equal(again[f"{prefix}images"][0], drawn[f"{prefix}images"][1])


def test_a_call_is_as_long_as_its_images_fit(source):
    # 64 MiB / (3 views · 6 · 30,000 bytes) = 124 steps.
    assert streaming.steps_per_call(config_of("ieg"), source, 1000) == 124
    assert streaming.steps_per_call(config_of("ieg"), source, 25) == 25
    large = dataclasses.replace(source, image_shape=(4000, 4000, 3))
    assert streaming.steps_per_call(config_of("ieg"), large, 25) == 1
    held = dataclasses.replace(source, crops=None)
    assert streaming.steps_per_call(config_of("ieg"), held, 1000) == 1000


def test_lazy_images_are_read_slice_by_slice():
    seen = []

    def read(ids):
        seen.append(ids.tolist())
        return np.zeros((len(ids), 2, 2, 3), np.uint8)

    images = streaming.LazyImages(read, 5)
    assert len(images) == 5
    assert [len(images[start : start + 2]) for start in (0, 2, 4)] == [2, 2, 1]
    assert seen == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("backend", "method"),
    [
        ("tensorflow", "fsr"),
        pytest.param("tensorflow", "ieg", marks=pytest.mark.slow),
        pytest.param("jax", "fsr", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_the_same_run(backend, method, tree):
    runs = run_on(backend, SCRIPT, "resume", str(tree), method)
    whole = {name: value for name, value in runs.items() if f"{method}/whole" in name}
    assert len(whole) >= 7
    for name, value in whole.items():
        assert runs[name.replace("whole", "resumed")].tobytes() == value.tobytes(), name
    assert 0 <= runs[f"{method}/photos"] == runs[f"{method}/curve"] <= 1
    if method == "fsr":  # refilled at the epochs' ends, steps 4, 8 and 12
        assert len(np.unique(runs["fsr/dictionary"])) > 1


@pytest.mark.slow
def test_memory_stays_flat_over_ten_times_more_images(tmp_path):
    taken = []
    for factor in (1, 10):
        root = write_tree(
            tmp_path / str(factor),
            {"train": 2, "test": 2, "photos": 1},
            kind="jpg",
            size=(260, 240),
        )
        for part, count in (("train", 60), ("test", 30)):
            for name in NAMES:
                folder = root / part / name
                for number in range(count * factor):
                    shutil.copy(folder / f"{number % 2:04}.jpg", folder / f"more{number}.jpg")
        taken.append(float(run_on("tensorflow", SCRIPT, "memory", str(root))["mebibytes"]))
    # The 2,430 images more are 349 MiB at 224×224.
    print(f"peak memory in MiB with 285 and with 2,715 images: {taken}")
    assert taken[1] - taken[0] < 60, taken
