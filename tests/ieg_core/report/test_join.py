# SPDX-License-Identifier: Apache-2.0
"""Several sweeps in one report, and what changed between two."""

import json
import os
import re

import pytest

from ieg_core.cli import main
from ieg_core.errors import UserError
from ieg_core.report import join
from ieg_core.report.summary import group_trials
from ieg_core.report.trials import load_sweep
from ieg_core.report.write import write_joined
from ieg_core.store import layout
from tests.records import put, put_json


def joined(*places):
    return join.join(places, join.find_sweeps(places))


def change(root, sweep, **values):
    """Rewrites every trial of a sweep with other values in result.json and its configuration."""
    for name in json.loads((root / "sweeps" / sweep / "plan.json").read_text())["trials"]:
        folder = root / "trials" / name
        for file in ("result.json", "config.json"):
            record = json.loads((folder / file).read_text())
            record |= {key: value for key, value in values.items() if key in record}
            if file == "config.json":
                record["config"]["optimizer"]["learning_rate"] = 0.05
            put_json(folder / file, record)


@pytest.fixture
def two(results_root_at):
    first = results_root_at("a", rates=(0.4,), methods=("supervised", "l2r"))
    second = results_root_at("b", rates=(0.4,), methods=("l2r",), seeds=(0, 1), sweep="s2")
    change(second, "s2", accuracy_ema_last=0.75, code_version="ffffffffffff")
    # Another configuration, so another name, as the digest in it would have it.
    for folder in (second / "trials").iterdir():
        folder.rename(folder.with_name(folder.name.replace("0123456789ab", "ba9876543210")))
    plan = second / "sweeps" / "s2" / "plan.json"
    for path in (plan, *(second / "trials").glob("*/*.json")):
        put_json(path, json.loads(path.read_text().replace("0123456789ab", "ba9876543210")))
    return first / "sweeps" / "s1", second / "sweeps" / "s2"


def test_one_place_is_its_own_sweep(results_root):
    root = results_root()
    sweep = load_sweep(root, "s1")
    assert joined(root / "sweeps" / "s1").rows == sweep.rows
    (root / "latest").symlink_to("sweeps/s1")
    (root / "latest" / "report").mkdir()
    assert joined(root).rows == sweep.rows
    assert joined(root / "latest" / "report").rows == sweep.rows


def test_a_root_means_the_sweep_that_ieg_status_shows(results_root):
    root = results_root()
    other = results_root(rates=(0.4,), methods=("l2r",), sweep="s2")
    assert other == root
    for age, sweep in enumerate(("s2", "s1")):
        os.utime(root / "sweeps" / sweep / "plan.json", (1000 - age, 1000 - age))
    (root / "latest").symlink_to("sweeps/s1")  # an earlier one, reported since
    assert join.find_sweep(root).name == layout.find_trials(root)[1] == "s2"


def test_a_trial_is_a_sweep_of_its_own(results_root):
    root = results_root()
    trial = next(iter(load_sweep(root, "s1").trials)).row["trial"]
    assert [c.row["trial"] for c in joined(root / "trials" / trial).trials] == [trial]


def test_a_trial_that_two_sweeps_share_comes_once(results_root):
    root = results_root(rates=(0.4,))
    plan = json.loads((root / "sweeps" / "s1" / "plan.json").read_text())
    other = root / "sweeps" / "s2"
    other.mkdir()
    put_json(other / "plan.json", plan | {"trials": plan["trials"][:1]})
    found = joined(root / "sweeps" / "s1", other)
    assert [trial.row["trial"] for trial in found.trials] == plan["trials"]
    assert {group.label for group in group_trials(found.trials)} == {"supervised", "l2r"}


def test_trials_of_other_settings_are_told_apart_by_what_differs(two):
    found = joined(*two)
    assert found.name == "A = s1, B = s2"
    labels = {group.label: group for group in group_trials(found.trials)}
    first = "l2r [optimizer.learning_rate=0.1, code=0f1e2d3c4b5a]"
    second = "l2r [optimizer.learning_rate=0.05, code=ffffffffffff]"
    assert set(labels) == {"supervised", first, second}
    # Two seeds of B at 0.75 each are not averaged with A's.
    assert labels[second].accuracy_ema_last.mean == pytest.approx(0.75)
    assert labels[second].accuracy_ema_last.count == 2
    assert labels[first].accuracy_ema_last.count == 1


def edit(root, file, **changes):
    """Changes the configurations of all trials, or the manifests of all label sets."""
    for path in sorted(root.glob(file)):
        record = json.loads(path.read_text())
        record.get("config", record).update(changes)
        put_json(path, record)


def joined_labels(*roots):
    groups = group_trials(joined(*(root / "sweeps" / "s1" for root in roots)).trials)
    return {(group.dataset, group.label): len(group.trials) for group in groups}


@pytest.fixture
def seed_apart(results_root_at):
    """Two sweeps of one method, of seed 0 at two noise rates and of seed 1 at one."""
    methods = {"methods": ("ieg",)}
    first = results_root_at("a", rates=(0.2, 0.4), seeds=(0,), **methods)
    return first, results_root_at("b", rates=(0.4,), seeds=(1,), **methods)


def test_seeds_of_the_same_settings_are_averaged(seed_apart):
    assert joined_labels(*seed_apart) == {
        ("digits_uniform_0.2", "ieg"): 1,
        ("digits_uniform_0.4", "ieg"): 2,
    }


@pytest.mark.parametrize(
    ("file", "changes", "before", "after"),
    [
        (
            "trials/*/config.json",
            {"method_settings": {"label_smoothing": 4}},
            "method.label_smoothing=0",
            "method.label_smoothing=4",
        ),
        (
            "label_sets/*/manifest.json",
            {"labels_file": {"name": "b.csv", "sha256": "0123456789abcdef"}},
            "labels=-",
            "labels=b.csv 01234567",
        ),
    ],
)
def test_seeds_of_other_settings_are_not_averaged(seed_apart, file, changes, before, after):
    edit(seed_apart[1], file, **changes)
    assert joined_labels(*seed_apart) == {
        # On one line with the same method at another noise rate, for the table's sake.
        ("digits_uniform_0.2", f"ieg [{before}]"): 1,
        ("digits_uniform_0.4", f"ieg [{before}]"): 1,
        ("digits_uniform_0.4", f"ieg [{after}]"): 1,
    }


def test_where_much_differs_the_sweep_is_the_name(seed_apart):
    other = {"evaluations": 3, "probe_per_class": 5, "batch_size": 50, "recipe": "other"}
    edit(seed_apart[1], "trials/*/config.json", **other)
    assert joined_labels(*seed_apart) == {
        ("digits_uniform_0.2", "ieg [A]"): 1,
        ("digits_uniform_0.4", "ieg [A]"): 1,
        ("digits_uniform_0.4", "ieg [B]"): 1,
    }


def test_long_names_stand_in_the_legend_and_not_beside_the_lines(seed_apart, tmp_path):
    edit(seed_apart[1], "trials/*/config.json", batch_size=50)
    places = [root / "sweeps" / "s1" for root in seed_apart]
    write_joined(places, tmp_path / "joined")
    page = (tmp_path / "joined" / "report.html").read_text()
    plot = page.partition("<h2>Accuracy against noise")[2].partition("<figcaption>")[0]
    assert '<div><p class="legend">' in plot
    ends = re.findall(r'class="end-label"[^>]*>([^<]*)<', plot)
    assert len(ends) == 2
    assert all(re.fullmatch(r"[\d.]+", end) for end in ends)


def test_the_terminal_shows_names_in_brackets_whole(seed_apart, tmp_path, capsys):
    edit(seed_apart[1], "trials/*/config.json", batch_size=50)
    places = [str(root / "sweeps" / "s1") for root in seed_apart]
    assert main.main(["report", *places, "--out", str(tmp_path / "joined")]) == 0
    assert "ieg [batch_size=50]" in capsys.readouterr().out


def test_another_length_is_named_by_its_steps_alone(results_root_at):
    first = results_root_at("a", rates=(0.4,), methods=("ieg",))
    second = results_root_at("b", rates=(0.4,), methods=("ieg",), seeds=(1,), steps=300)
    assert joined_labels(first, second) == {
        ("digits_uniform_0.4", "ieg (preact8, 600 steps)"): 1,
        ("digits_uniform_0.4", "ieg (preact8, 300 steps)"): 1,
    }


def test_the_same_length_is_the_same_however_it_was_requested(seed_apart):
    for root, lengths in zip(seed_apart, ({"num_steps": 600}, {"num_cycles": 7}), strict=True):
        edit(root, "trials/*/config.json", schedule=lengths)
    assert {label for _, label in joined_labels(*seed_apart)} == {"ieg"}


def test_a_trial_without_its_settings_is_averaged_with_none(seed_apart):
    for path in seed_apart[1].glob("trials/*/config.json"):
        path.write_text("{")
    assert list(joined_labels(*seed_apart).values()) == [1, 1, 1]


def test_settings_and_audits_are_shown_line_by_line(seed_apart, tmp_path):
    edit(seed_apart[1], "trials/*/config.json", batch_size=50)
    for root in seed_apart:
        for folder in root.glob("trials/*"):
            (folder / "audit").mkdir()
            put(folder / "audit" / "summary.json", flagged=1, examples=2)
    write_joined([root / "sweeps" / "s1" for root in seed_apart], tmp_path / "joined")
    page = (tmp_path / "joined" / "report.html").read_text()
    settings = page.partition('aria-label="Settings by method"')[2].partition("</table>")[0]
    assert re.findall('<th scope="col">(.*?)</th>', settings) == [
        "setting",
        "ieg [batch_size=100]",
        "ieg [batch_size=50]",
    ]
    audits = page.partition("<h2>Label audit</h2>")[2].partition("</section>")[0]
    assert audits.count("ieg [batch_size=100]") == 2
    assert audits.count("ieg [batch_size=50]") == 1


def test_changes_between_two(two):
    found = join.changes(*join.find_sweeps(two))
    by_label = {each.label: each for each in found.accuracy}
    before = by_label["l2r"].before.mean
    assert by_label["l2r"].points == pytest.approx(100 * (0.75 - before))
    assert by_label["supervised"].after is None
    assert by_label["supervised"].points is None
    settings = {key: (old, new) for key, old, new in found.settings}
    assert settings["optimizer.learning_rate"] == ("0.1", "0.05")
    assert settings["code that determines outcomes"] == ("0f1e2d3c4b5a", "ffffffffffff")
    assert not any("seed" in key for key in settings)
    # Only A has plain training; what that is set to has changed in nothing.
    assert settings["method"] == ("l2r, supervised", "l2r")
    assert not any("(supervised)" in key for key in settings)


def test_the_joined_report_says_what_changed(two, tmp_path):
    folder = tmp_path / "joined"
    write_joined(two, folder)
    page = (folder / "report.html").read_text()
    assert "Changes from A to B" in page
    assert "optimizer.learning_rate" in page
    table = (folder / "results.md").read_text()
    assert "B − A" in table
    trials = json.loads((folder / "results.json").read_text())["trials"]
    assert len(trials) == 4
    assert {trial["variant"] for trial in trials} == {
        None,
        "optimizer.learning_rate=0.1, code=0f1e2d3c4b5a",
        "optimizer.learning_rate=0.05, code=ffffffffffff",
    }


def test_no_results_there(tmp_path):
    with pytest.raises(UserError, match="contains no results: expected the folder of a sweep"):
        join.find_sweep(tmp_path)
