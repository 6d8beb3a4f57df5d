# SPDX-License-Identifier: Apache-2.0
import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ieg_core.errors import UserError
from ieg_core.report.html import page
from ieg_core.report.html.page import settings_view
from ieg_core.report.summary import group_trials
from ieg_core.report.trials import ROW_KEYS, load_sweep
from ieg_core.store.records import FailureRecord, ReportRecord
from tests.ieg_core.report.pages import Page, report, trials_of, write_files
from tests.records import put, put_json

ISSUE_KEYS = (
    "dataset",
    "method",
    "noise_rate",
    "true_flip_rate",
    "seed",
    "network",
    "steps",
    "clean_labels_used",
    "accuracy_ema_last",
    "accuracy_ema_best",
    "accuracy_last",
    "accuracy_best",
    "status",
    "reason",
    "train_seconds",
    "steps_per_second",
    "backend",
    "precision",
    "run_directory",
)
Builder = Callable[..., Path]


def test_every_row_has_every_key_whatever_became_of_the_trial(results_root: Builder) -> None:
    root = results_root(failed=[("l2r", 0.4, 0)], skipped=[("l2r", 0.8, 0)])
    rows = trials_of(write_files(root, "s1"))
    assert set(ISSUE_KEYS) <= set(ROW_KEYS)
    assert all(list(row)[: len(ROW_KEYS)] == list(ROW_KEYS) for row in rows)
    by_status = {row["status"]: row for row in rows}
    failed, skipped, finished = (by_status[s] for s in ("failed", "skipped", "finished"))
    assert failed["reason"].startswith("the loss is not finite")
    assert skipped["reason"] == "not run"
    for row in (failed, skipped):
        assert row["method"] == "l2r"
        assert row["clean_labels_used"] == 100
        assert row["steps"] == 600
        assert row["accuracy_ema_last"] is None
        assert row["run_directory"] == f"trials/{row['trial']}"
    assert 0 < finished["accuracy_ema_last"] <= 1
    assert finished["reason"] == ""


def test_rows_are_sorted_by_content(results_root: Builder) -> None:
    root = results_root(
        rates=(0.8, 0.2), methods=("ieg", "l2r", "probe_only", "supervised"), seeds=(1, 0)
    )
    rows = trials_of(write_files(root, "s1"))
    keys = [(row["noise_rate"], row["method"], row["seed"]) for row in rows]
    order = ("supervised", "probe_only", "l2r", "ieg")
    assert keys == [(r, m, s) for r in (0.2, 0.8) for m in order for s in (0, 1)]


def test_csv_has_a_line_a_trial(results_root: Builder) -> None:
    folder = write_files(results_root(failed=[("l2r", 0.4, 0)]), "s1")
    lines = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert len(lines) == 6
    assert set(ISSUE_KEYS) <= set(lines[0])
    failed = next(line for line in lines if line["status"] == "failed")
    assert failed["accuracy_ema_last"] == ""
    assert float(lines[0]["noise_rate"]) == 0.2


def test_markdown_shows_the_means_and_escapes(results_root: Builder) -> None:
    root = results_root(rates=(0.8,), seeds=(0, 1), failed=[("l2r", 0.8, 1)])
    for seed, accuracy in ((0, 0.6), (1, 0.7)):
        path = root / f"trials/digits_uniform_0.8-supervised-seed{seed}-0123456789ab/result.json"
        put_json(path, json.loads(path.read_text()) | {"accuracy_ema_last": accuracy})
    failure = root / "trials/digits_uniform_0.8-l2r-seed1-0123456789ab/failure.json"
    put(failure, reason="a | b\n<i>c</i>")
    text = (write_files(root, "s1") / "results.md").read_text()
    # mean 0.65, deviation sqrt(2 * 0.05²) = 0.0707
    assert "| supervised | 0 | 65.0 ± 7.1 |" in text
    assert r"| failed | a \| b \<i\>c\</i\> |" in text
    assert "best on test" in text
    assert "make sweep DATASET=digits_uniform" in text


def test_an_interrupted_trial_says_how_far_it_came(results_root: Builder) -> None:
    root = results_root(skipped=[("l2r", 0.8, 0)])
    folder = root / "trials/digits_uniform_0.8-l2r-seed0-0123456789ab"
    put(folder / "progress.json", phase="training", step=300, num_steps=600)
    row = next(r for r in load_sweep(root, "s1").rows if r["status"] == "skipped")
    assert row["reason"].startswith(
        "not finished (training, step 300 of 600): if it is not running"
    )
    put(folder / "training.json")
    row = next(r for r in load_sweep(root, "s1").rows if r["status"] == "skipped")
    assert row["reason"].startswith("trained but not evaluated")


def test_a_later_result_outweighs_an_earlier_failure(results_root: Builder) -> None:
    root = results_root(rates=(0.8,), methods=("l2r",))
    (folder,) = (root / "trials").iterdir()
    put(folder / "failure.json", reason="killed")
    (row,) = load_sweep(root, "s1").rows
    assert (row["status"], row["reason"]) == ("finished", "")


@pytest.mark.parametrize("name", ["config.json", "result.json", "curves.json", "failure.json"])
@pytest.mark.parametrize("content", ['{"cut', "[1]", "\x00"], ids=["cut", "list", "nul"])
def test_a_damaged_file_costs_its_own_trial_alone(
    results_root: Builder, name: str, content: str
) -> None:
    root = results_root(rates=(0.2, 0.8), methods=("l2r",))
    (root / "trials/digits_uniform_0.8-l2r-seed0-0123456789ab" / name).write_text(content)
    rows = trials_of(write_files(root, "s1"))
    assert len(rows) == 2
    assert rows[0]["status"] == "finished"
    if name == "result.json":
        assert rows[1]["status"] == "failed"
        assert name in rows[1]["reason"]


def test_a_damaged_matrix_or_a_missing_folder_leaves_the_rest(results_root: Builder) -> None:
    root = results_root(rates=(0.2, 0.8), methods=("supervised", "l2r"))
    folder = root / "trials/digits_uniform_0.8-l2r-seed0-0123456789ab"
    (folder / "matrices.safetensors").write_bytes(b"no tensors")
    for path in (root / "trials/digits_uniform_0.2-l2r-seed0-0123456789ab").iterdir():
        path.unlink()
    page = report(root)
    assert page.count("Confusion matrix of") == 2
    assert "not run" in page


def test_a_trial_whose_folder_is_gone_is_known_by_its_name(results_root: Builder) -> None:
    root = results_root(rates=(0.2,), methods=("supervised", "l2r"))
    name = "digits_uniform_0.2-l2r-seed0-0123456789ab"
    shutil.rmtree(root / "trials" / name)
    page = report(root)
    markdown = (root / "sweeps/s1/report/results.md").read_text()
    assert ">None<" not in page
    assert "None" not in markdown
    assert name in page
    assert name in markdown


@pytest.mark.parametrize("damaged", [False, True])
def test_what_reading_the_data_brought_to_light_is_told_once(
    results_root: Builder, damaged: bool
) -> None:
    root = results_root(rates=(0.2, 0.4), methods=("supervised", "l2r"))
    notes = {
        "num_in_train_and_test": 1,
        "in_train_and_test": 7 if damaged else [["train/<b>/1.png", "test/<b>/2.png"]],
    }
    for manifest in root.glob("label_sets/*/manifest.json"):
        put_json(manifest, json.loads(manifest.read_text()) | {"notes": notes})
    page = report(root)
    note = "1 test file is also in the training set (train/&lt;b&gt;/1.png = test/&lt;b&gt;/2.png)"
    assert page.count(note) == (0 if damaged else 1)
    markdown = (root / "sweeps/s1/report/results.md").read_text()
    assert markdown.count("this inflates the accuracy") == (0 if damaged else 1)


def test_a_name_that_is_not_utf8_leaves_the_digest_right(results_root: Builder) -> None:
    root = results_root(failed=[("l2r", 0.4, 0)])
    failed = root / "trials" / next(t["trial"] for t in trials_of(write_files(root, "s1"))
                                    if t["status"] == "failed")  # fmt: skip
    record = FailureRecord.read(failed)
    assert record is not None
    replace(record, reason="caf\udce9.png").write(failed)
    folder = write_files(root, "s1")
    (row,) = (row for row in trials_of(folder) if row["status"] == "failed")
    assert row["reason"] == "caf?.png"
    assert ReportRecord.read(folder.parent) is not None


def test_nan_is_damage(results_root: Builder) -> None:
    root = results_root(rates=(0.8,), methods=("l2r",))
    (folder,) = (root / "trials").iterdir()
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(
        re.sub(r'"accuracy_last": [\d.]+', '"accuracy_last": NaN', text)
    )
    text = (folder / "curves.json").read_text()
    (folder / "curves.json").write_text(re.sub(r'"loss": [\d.]+', '"loss": NaN', text, count=1))
    (row,) = trials_of(write_files(root, "s1"))
    assert row["status"] == "failed"
    assert "is damaged (NaN is not a JSON number)" in row["reason"]
    assert "Learning curves" not in report(root)


def test_the_page_loads_nothing_and_runs_nothing(results_root: Builder) -> None:
    page = report(
        results_root(failed=[("l2r", 0.4, 0)], methods=("supervised", "probe_only", "l2r"))
    )
    parsed = Page(page)
    assert not {"script", "iframe", "object", "embed", "base"} & set(parsed.tags)
    for tag, name, value in parsed.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "src", "xlink:href", "srcset", "data", "action"):
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"https?://|//[a-z]|@import|url\(", page)
    assert "default-src 'none'" in page
    targets = {v[1:] for _, n, v in parsed.attributes if n == "href" and v.startswith("#")}
    assert targets <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))


def test_the_page_has_all_parts_and_both_themes(results_root: Builder) -> None:
    page = report(results_root(failed=[("l2r", 0.4, 0)], seeds=(0, 1)))
    for heading in (
        "Results",
        "Accuracy against noise",
        "Learning curves",
        "Confusion matrices",
        "Inside the training",
        "Trials without a result",
        "Settings",
        "Versions",
        "Run it again",
    ):
        assert heading in page
    assert "prefers-color-scheme: dark" in page
    assert ":focus-visible" in page
    assert "make sweep DATASET=digits_uniform" in page
    assert page.count('<svg class="chart"') == 1 + 3 + 3 * 3  # noise, learning, three diagnostics


def test_everything_is_escaped(results_root: Builder) -> None:
    evil = "<script>alert('x')</script>"
    root = results_root(
        rates=(0.8,), class_names=[f"{evil}{i}" for i in range(10)], failed=[("l2r", 0.8, 0)]
    )
    plan = root / "sweeps/s1/plan.json"
    put_json(plan, json.loads(plan.read_text()) | {"command": f"make {evil}"})
    for folder in (root / "trials").iterdir():
        config = json.loads((folder / "config.json").read_text())
        config |= {"versions": {evil: evil}, "network": evil}
        config["config"][evil] = evil
        put_json(folder / "config.json", config)
    failure = {"reason": evil, "log": evil, "phase": evil, "step": 37}
    folder = root / "trials/digits_uniform_0.8-l2r-seed0-0123456789ab"
    put_json(folder / "failure.json", failure)
    page = report(root)
    Page(page)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 10


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        pytest.param(10, {"rates": [i / 10 for i in range(1, 9)], "seeds": range(5)}, id="10"),
        pytest.param(100, {"rates": [i / 100 for i in range(1, 41)], "seeds": [0]}, id="100"),
    ],
)
def test_two_hundred_trials_stay_below_five_megabytes(
    results_root: Builder, classes: int, options: dict
) -> None:
    methods = ("supervised", "probe_only", "l2r", "fsr", "ieg")
    names = [f"class {i}" for i in range(classes)]
    root = results_root(methods=methods, class_names=names, **options)
    folder = write_files(root, "s1")
    assert len(trials_of(folder)) == 200
    assert (folder / "report.html").stat().st_size < 5_000_000
    page = Page((folder / "report.html").read_text())
    outside = ("src", "data", "action", "formaction", "poster", "srcset", "xlink:href")
    assert not [name for _, name, _ in page.attributes if name in outside]
    links = {value[:1] for _, name, value in page.attributes if name == "href"}
    assert links == {"#", "d"}  # within the page, or data:


def test_all_of_a_large_page_is_reached_by_the_tab_key_in_its_order(results_root: Builder) -> None:
    text = report(results_root(rates=[i / 20 for i in range(1, 13)]))
    page = Page(text)
    assert {value for _, name, value in page.attributes if name == "tabindex"} == {"0"}
    stops = [tag for tag in re.findall(r"<(?:a|summary|details|div|pre)\b[^>]*>", text)
             if tag.startswith(("<a", "<summary")) or "tabindex" in tag]  # fmt: skip
    assert stops[0] == '<a class="skip" href="#results">'
    assert "results" in page.ids
    scrolls = re.findall(r'<div class="scroll[^>]*>', text)
    assert len(scrolls) >= 4
    assert all('tabindex="0"' in tag and "aria-label=" in tag for tag in scrolls)
    # Costs and the plots of all but the highest rates are not lost, only elsewhere.
    assert text.count("9 lower noise rates</summary>") == 2
    assert text.count("<h3>Cost</h3>") == 1
    assert len(re.findall(r'figcaption class="panel-title">[\d.]+ % noise<', text)) == 12 * 4
    assert "<h3>Cost</h3>" not in report(results_root(sweep="s2"), "s2")


def test_a_single_trial_and_an_empty_sweep_have_a_page(results_root: Builder) -> None:
    page = report(results_root(rates=(0.8,), methods=("l2r",)))
    assert "Accuracy against noise" not in page
    assert "At 80\N{NO-BREAK SPACE}% noise l2r keeps" in page
    page = report(results_root(rates=(), sweep="empty"), "empty")
    assert "No trial has finished." in page


def test_the_same_results_give_the_same_bytes(results_root: Builder) -> None:
    root = results_root()
    first = {path.name: path.read_bytes() for path in write_files(root, "s1").iterdir()}
    assert first == {path.name: path.read_bytes() for path in write_files(root, "s1").iterdir()}
    assert set(first) == {"results.json", "results.csv", "results.md", "report.html"}


def test_an_unknown_or_damaged_sweep_is_one_clear_line(results_root: Builder) -> None:
    root = results_root()
    with pytest.raises(UserError, match=r"no sweep 's2'.*sweeps there: s1"):
        write_files(root, "s2")
    (root / "sweeps/s1/plan.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        write_files(root, "s1")


def test_settings_are_split_into_common_and_by_method(results_root: Builder) -> None:
    view = settings_view(group_trials(load_sweep(results_root(), "s1").trials))
    assert ("optimizer.learning_rate", "0.1") in view.shared
    assert view.labels == ("supervised", "l2r")
    assert ("method.lookahead_lr", ("-", "0.1")) in view.varying
    assert not any(key in ("seed", "dataset", "method") for key, _ in view.shared)


def test_a_trial_that_finishes_while_its_report_is_written_is_in_it(
    results_root: Builder, monkeypatch
) -> None:
    root = results_root()
    result = sorted(root.glob("trials/*/result.json"))[0]
    hidden = result.rename(result.with_name("hidden"))
    render = page.render

    def slow(*arguments) -> str:
        text = render(*arguments)
        if hidden.exists():
            hidden.rename(result)
        return text

    monkeypatch.setattr(page, "render", slow)
    assert {row["status"] for row in trials_of(write_files(root, "s1"))} == {"finished"}


def test_reporting_imports_no_deep_learning_framework() -> None:
    code = (
        "import sys, ieg_core.report\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'kfp', 'kubernetes', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_line_that_ends_early_says_where(results_root: Builder) -> None:
    root = results_root(skipped=[("l2r", 0.8, 0)])
    page = report(root)
    assert re.search(r">l2r [\d.]+ at 40 %</text>", page)
    assert re.search(r">supervised [\d.]+</text>", page)


def test_a_long_tail_is_told_with_balanced_accuracy_and_repetitions(results_root: Builder) -> None:
    root = results_root(dataset="digits_imbal_0.05", rates=(0.2,), methods=("supervised", "fsr"))
    (trial,) = (root / "trials").glob("*-fsr-*")
    curves = json.loads((trial / "curves.json").read_text())
    for step, share in ((100, 0.5), (200, 0.25)):
        record = {"step": step, "dictionary_repeats": share, "dictionary_repeated_classes": 4.0}
        curves["training"].append(record)
    put_json(trial / "curves.json", curves)
    folder = write_files(root, "s1")
    found = {row["method"]: row["dictionary_repeats"] for row in trials_of(folder)}
    assert found == {"supervised": None, "fsr": 0.25}
    note = "25.0 % of the dictionary's slots (fsr) repeat an example: 4 classes have too few"
    assert note in (folder / "results.md").read_text()
    page = (folder / "report.html").read_text()
    Page(page)
    assert page.count("<small>balanced") == 2
    assert "<small>balanced" not in report(results_root(sweep="s2"), "s2")


def test_published_figures_are_shown_where_there_are_any(results_root: Builder) -> None:
    root = results_root(dataset="cifar10_uniform", rates=(0.2,), methods=("supervised", "ieg"))
    folder = write_files(root, "s1")
    page = (folder / "report.html").read_text()
    Page(page)
    for text in (page, (folder / "results.md").read_text()):
        assert "Published figures" in text
        assert "wrn28-10-released, 100" in text
    assert "Published figures" not in report(results_root(sweep="s2"), "s2")
