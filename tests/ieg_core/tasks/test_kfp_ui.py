# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from ieg_core.report.trials import Trial, load_sweep, load_trial
from ieg_core.store.arrays import encode
from ieg_core.tasks import kfp_ui
from tests.records import put

TRIAL = "c"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "trials" / TRIAL
    put(folder / "config.json", label_set="o")
    return folder


def test_only_numbers_are_shown(tmp_path, folder):
    assert kfp_ui.metrics(load_trial(tmp_path, TRIAL).row) == {}
    put(folder / "result.json", accuracy_ema_last=0.5, seed=0)
    shown = kfp_ui.metrics(load_trial(tmp_path, TRIAL).row)
    assert (shown["accuracy_ema_last"], shown["seed"]) == (0.5, 0)
    assert not {"versions", "dataset", "noise_rate"} & shown.keys()
    (folder / "result.json").write_text((folder / "result.json").read_text().replace("0.5", "NaN"))
    assert kfp_ui.metrics(load_trial(tmp_path, TRIAL).row) == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"status": "failed"}'])
def test_of_a_damaged_or_failed_result_nothing_is_shown(tmp_path, folder, content):
    (folder / "result.json").write_text("{")
    (folder / "failure.json").write_text(content)
    assert kfp_ui.metrics(load_trial(tmp_path, TRIAL).row) == {}
    assert kfp_ui.confusion(load_trial(tmp_path, TRIAL)) == ([], [])


def test_classes_of_the_same_name_are_told_apart(tmp_path, folder):
    counts = np.array([[5, 1], [2, 8]])
    put(folder / "result.json")
    (folder / "matrices.safetensors").write_bytes(encode({"confusion_ema_last": counts}))
    manifest = tmp_path / "label_sets" / "o" / "manifest.json"
    put(manifest, class_names=["cat", "dog"])
    assert kfp_ui.confusion(load_trial(tmp_path, TRIAL)) == (
        ["cat", "dog"],
        [[5.0, 1.0], [2.0, 8.0]],
    )
    put(manifest, class_names=["cat", "cat"])
    assert kfp_ui.confusion(load_trial(tmp_path, TRIAL))[0] == ["0 cat", "1 cat"]


def test_of_many_classes_the_most_confused_are_shown():
    """A page of 100 trials with 100 classes each would fetch 11 MB at every refresh."""
    counts = np.diag(np.full(100, 50))
    for true, predicted, count in ((7, 93, 30), (93, 7, 20), (2, 50, 10)):
        counts[true, predicted] = count
    names = tuple(f"class {index}" for index in range(100))
    trial = Trial({}, confusion=counts, class_names=names)
    shown, matrix = kfp_ui.confusion(trial)
    assert len(shown) == len(matrix) <= 20
    assert {"class 2", "class 7", "class 50", "class 93"} < set(shown)
    assert shown[-1] == f"{100 - len(shown) + 1} others"
    assert matrix[shown.index("class 7")][shown.index("class 93")] == 30
    assert np.sum(matrix) == counts.sum()
    assert np.trace(matrix) == np.trace(counts)


def test_a_long_document_is_cut_after_a_line_and_says_so():
    line = "x" * 99 + "\n"
    assert kfp_ui.short_markdown(line * 3) == line * 3
    cut = kfp_ui.short_markdown(line * 5000)
    assert len(cut) < 400_000
    assert cut.startswith(line * 3899)
    assert set(cut.splitlines()[:-2]) <= {"x" * 99}
    assert cut.endswith("Truncated; results.md has all rows.\n")


def test_failures_are_those_of_the_run_and_short(tmp_path):
    trials = [f"trial-{number:03d}" for number in range(200)]
    put(tmp_path / "sweeps" / "s" / "plan.json", trials=trials)
    for trial in trials[1:]:
        put(tmp_path / "trials" / trial / "failure.json", reason="y" * 60)
    put(tmp_path / "trials" / trials[0] / "result.json")
    rows = load_sweep(tmp_path, "s").rows
    assert kfp_ui.failures(rows, trials[:1]) == ""
    assert kfp_ui.failures(rows, trials[:2]) == f"trial-001: {'y' * 60}"
    everything = kfp_ui.failures(rows, trials)
    assert everything.startswith("199 trials: trial-001: yyy")
    assert len(everything) <= kfp_ui.FAILURES_CHARACTERS + 20
