# SPDX-License-Identifier: Apache-2.0
"""The cost of a trial and additional test sets, from result.json to the page."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

from ieg_core.data.label_set import ManifestRecord
from ieg_core.report import trials
from tests.ieg_core.report.pages import Page, report, trials_of, write_files
from tests.records import example, put, put_json

Builder = Callable[..., Path]


def edit_result(trial: Path, **changes: object) -> None:
    path = trial / "result.json"
    put_json(path, json.loads(path.read_text()) | changes)


def test_gpu_hours_by_hand(results_root: Builder) -> None:
    root = results_root(rates=(0.8,), methods=("supervised", "l2r", "fsr"))
    trials = {path.name.split("-")[1]: path for path in (root / "trials").iterdir()}
    # 2 GPUs for 5,400 s are 3 GPU-hours; 4 for 900 s, written down before result.json said so, 1.
    edit_result(trials["l2r"], num_gpus=2, device="NVIDIA H200", total_seconds=5400.0)
    edit_result(trials["fsr"], device="NVIDIA H200", total_seconds=900.0)
    put(trials["fsr"] / "training.json", num_replicas=4)
    folder = write_files(root, "s1")
    found = {row["method"]: (row["num_gpus"], row["gpu_hours"]) for row in trials_of(folder)}
    assert found == {"supervised": (0, 0.0), "l2r": (2, 3.0), "fsr": (4, 1.0)}
    page = (folder / "report.html").read_text()
    costs = re.findall(r'<td class="n">600</td>(?:<td class="n">([^<]+)</td>){3}', page)
    assert costs == ["-", "3", "1"]
    assert "<dt>GPU-hours, all trials</dt><dd>4</dd>" in page
    (trials["fsr"] / "training.json").unlink()
    unknown = {row["method"]: row["gpu_hours"] for row in trials_of(write_files(root, "s1"))}
    assert unknown == {"supervised": 0.0, "l2r": 3.0, "fsr": None}


def test_additional_test_sets_have_a_table_of_their_own(results_root: Builder) -> None:
    root = results_root(rates=(0.8,))
    before = re.search("<h1>.*</h1>", report(root))
    trials = {path.name.split("-")[1]: path for path in (root / "trials").iterdir()}
    edit_result(trials["l2r"], eval_sets={"photos": {"accuracy_ema": 0.625, "accuracy": 0.5}})
    folder = write_files(root, "s1")
    page = (folder / "report.html").read_text()
    Page(page)
    assert before
    assert before.group() in page
    assert "additional test set photos" in page
    (table,) = re.findall(r'<div[^>]*aria-label="Results on photos.*?</table>', page, re.S)
    assert re.findall(r'<span class="mean">([^<]+)</span>', table) == ["-", "62.5"]
    assert "on photos, last (EMA) %" in (folder / "results.md").read_text()
    lines = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert {line["method"]: line["accuracy_ema_photos"] for line in lines} == {
        "supervised": "",
        "l2r": "0.625",
    }
    (trials["l2r"] / "result.json").write_text(
        (trials["l2r"] / "result.json").read_text().replace('{"accuracy_ema"', '{"accuracy_ema_"')
    )
    assert "additional test set" not in report(root)


def test_a_trial_with_a_validation_set_says_what_its_accuracies_are() -> None:
    manifest = example(ManifestRecord, spec="digits_uniform_0.4", validation_fraction=0.2)
    (note,) = trials._notes(manifest)
    assert note == (
        "digits_uniform_0.4: every accuracy is the agreement with the given labels of a held-out "
        "20% of the training examples; the test set was not read"
    )
    assert trials._notes(example(ManifestRecord)) == ()
