# SPDX-License-Identifier: Apache-2.0
"""A run on a folder of images with two further test sets, as those see it who follow it."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from ieg_core.host.files import read_json
from ieg_core.report.write import write_report
from ieg_core.store.layout import report_folder
from tests.backends import run_on
from tests.ieg_core.data.trees import write_tree
from tests.ieg_core.training.events import read_pictures, read_scalars

SCRIPT = Path(__file__).parent / "followed_runs.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    counts = {"train": 20, "test": 4, "probe": 4, "photos": 3, "drawings": 5}
    write_tree(data, counts, size=(8, 8))
    results = tmp_path_factory.mktemp("results")
    return results, run_on("tensorflow", SCRIPT, str(data), str(results))


def trial(results, name):
    (folder,) = (results / name / "trials").iterdir()
    return folder


@pytest.mark.parametrize("other", ["cut", "bare"])
def test_pictures_and_interruptions_change_no_bit_of_the_checkpoint(runs, other):
    whole, changed = (load(runs[1][name].tobytes()) for name in ("whole", other))
    assert len(whole) > 10
    assert whole.keys() == changed.keys()
    for name, value in whole.items():
        assert changed[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("name", ["whole", "cut"])
def test_a_run_shows_what_it_sees_once_and_what_it_mixes_up_at_each_evaluation(runs, name):
    pictures = read_pictures(trial(runs[0], name) / "tensorboard")
    assert {tag: [step for step, *_ in shown] for tag, shown in pictures.items()} == {
        "train/weak_view": [0],
        "test/confusion_matrix": [50, 100, 150],
    }
    assert all(0 < size <= 65536 for shown in pictures.values() for *_, size in shown)
    assert pictures["train/weak_view"][0][1:3] == (8 * 34 - 2, 2 * 34 - 2)  # 12 images, 4 times up


def test_a_resumed_run_shows_what_an_undisturbed_one_shows(runs):
    folders = [trial(runs[0], name) / "tensorboard" for name in ("whole", "cut")]
    whole, resumed = (read_pictures(folder, content=True) for folder in folders)
    assert whole == resumed
    scalars = read_scalars(folders[1])
    assert scalars == read_scalars(folders[0])
    assert [step for step, _ in scalars["test/accuracy_ema_photos"]] == [50, 100, 150]


def test_each_further_test_set_is_in_the_report_and_the_headline_is_of_the_first(runs):
    root = runs[0] / "whole"
    row = read_json(trial(runs[0], "whole") / "result.json")
    assert set(row["eval_sets"]) == {"photos", "drawings"}
    (sweep,) = (path.name for path in (root / "sweeps").iterdir())
    report = write_report(root, sweep)
    header, line = report.table
    for name, size in (("photos", 9), ("drawings", 15)):
        accuracy = row["eval_sets"][name]["accuracy_ema"]
        assert np.isclose(accuracy * size, round(accuracy * size))  # so many of so many right
        assert line[header.index(f"on {name}, last (EMA) %")] == f"{100 * accuracy:.1f}"
    assert f"{100 * row['accuracy_ema_last']:.1f} %" in report.headline.sentence
    page = (report_folder(root, sweep) / "report.html").read_text()
    assert "additional test set photos" in page
    assert "additional test set drawings" in page
    assert (row["num_gpus"], line[-1]) == (0, "-")
