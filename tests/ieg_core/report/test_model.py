# SPDX-License-Identifier: Apache-2.0
"""A report is computed once, from files that are read once."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from ieg_core.cli import main
from ieg_core.report import summary
from ieg_core.report.trials import FINISHED, load_sweep
from ieg_core.report.write import write_joined, write_report
from ieg_core.store import arrays
from tests.records import put, put_json

OPENED: list[Counter[str]] = []
"""Where the audit hook counts; such a hook cannot be removed again."""


def _count_open(event: str, arguments: tuple) -> None:
    if event == "open" and OPENED and isinstance(arguments[0], str | Path):
        OPENED[-1][str(Path(arguments[0]).resolve())] += 1


sys.addaudithook(_count_open)


@pytest.fixture
def opened(monkeypatch):
    """Counts how often each file is opened, by Python or by safetensors."""
    counts: Counter[str] = Counter()
    read = arrays.read

    def counted(path, remedy):
        counts[str(Path(path).resolve())] += 1
        return read(path, remedy)

    monkeypatch.setattr(arrays, "read", counted)
    OPENED.append(counts)
    yield counts
    OPENED.remove(counts)


@pytest.fixture
def grouped(monkeypatch):
    """Collects the number of trials at each call of `group_trials`, wherever it is called."""
    calls = []
    group_trials = summary.group_trials

    def counted(trials):
        trials = list(trials)
        calls.append(len(trials))
        return group_trials(trials)

    for module in list(sys.modules.values()):
        if getattr(module, "group_trials", None) is group_trials:
            monkeypatch.setattr(module, "group_trials", counted)
    return calls


def read_of(root: Path, opened: Counter[str]) -> Counter[str]:
    """Returns the counts of the trials' and the label sets' files, by their name's last part."""
    folders = [str((root / name).resolve()) for name in ("trials", "label_sets")]
    return Counter({path: n for path, n in opened.items() if path.startswith(tuple(folders))})


@pytest.fixture
def root(results_root):
    """Two methods on one label set each rate, a failed and an interrupted trial, an audit."""
    root = results_root(seeds=(0, 1), failed=[("l2r", 0.4, 0)], skipped=[("l2r", 0.8, 1)])
    for folder in (root / "trials").iterdir():
        put(folder / "training.json", num_replicas=1)
        put(folder / "progress.json")
        put(folder / "audit" / "summary.json", flagged=1, examples=2)
    return root


def test_each_file_of_a_sweep_is_read_once_for_all_of_its_report(root, opened):
    write_report(root, "s1")
    counts = read_of(root, opened)
    names = Counter(Path(path).name for path in counts)
    # 12 trials, of which 10 finished; one label set per noise rate and seed.
    for name in ("config.json", "result.json", "curves.json", "summary.json"):
        assert names[name] == 12
    assert names["matrices.safetensors"] == 10
    assert names["manifest.json"] == 6
    assert set(counts.values()) == {1}


def test_trials_that_joined_sweeps_share_are_read_once(root, opened, tmp_path):
    plan = json.loads((root / "sweeps" / "s1" / "plan.json").read_text())
    other = root / "sweeps" / "s2"
    other.mkdir()
    put_json(other / "plan.json", plan | {"trials": plan["trials"][:5]})
    opened.clear()
    places = [str(root / "sweeps" / "s1"), str(other)]
    assert main.main(["report", *places, "--out", str(tmp_path / "joined")]) == 0
    ((first, times), (_, others)) = read_of(root, opened).most_common(2)
    # One configuration shows for each place that this version wrote the root.
    assert (Path(first).name, times, others) == ("config.json", 3, 1)


def test_trials_are_grouped_once_a_sweep(root, grouped, tmp_path):
    report = write_report(root, "s1")
    assert grouped == [12]
    grouped.clear()
    places = [root / "sweeps" / "s1", next((root / "trials").iterdir())]
    write_joined(places, tmp_path / "joined")
    # A and B for what differs between them, and both together for the report.
    assert grouped == [12, 1, 12]
    assert len(report.groups) == 6


def test_the_component_reads_no_file_again_to_judge_and_to_name_failures(
    root, opened, grouped, tmp_path
):
    from types import SimpleNamespace

    from components.report import report

    judged = report.python_func(
        plan=SimpleNamespace(metadata={"sweep": "s1"}),
        evaluated=[path.name for path in (root / "trials").iterdir()],
        results=str(root),
        results_namespace="",
        run="r",
        schedule="nightly",
        tolerance=1.0,
        accepted="",
        page=SimpleNamespace(path=str(tmp_path / "page.html")),
        table=SimpleNamespace(path=str(tmp_path / "table.md")),
    )
    assert judged.startswith("trials did not finish: ")
    assert set(read_of(root, opened).values()) == {1}
    assert grouped == [12, 0]  # the sweep, and the run that was accepted before: none


def test_parts_agree_with_the_rows(root):
    report = write_report(root, "s1")
    assert sum(len(group.trials) for group in report.groups) == len(report.rows) == 12
    assert [group for members in report.families.values() for group in members] == report.groups
    assert {trial.row["status"] for trial in report.missing} == {"failed", "skipped"}
    assert len(report.table) == 1 + len(report.groups)
    assert report.audits


def test_a_trial_is_current_until_its_outcome_is_written_again(results_root):
    root = results_root(rates=(0.8,), methods=("l2r",))
    (trial,) = load_sweep(root, "s1").trials
    assert (trial.is_current, trial.row["status"]) == (True, FINISHED)
    (folder,) = (root / "trials").iterdir()
    (folder / "progress.json").write_text("{}")
    assert trial.is_current
    (folder / "failure.json").write_text("{}")
    assert not trial.is_current
    (trial,) = load_sweep(root, "s1").trials
    assert trial.is_current
    (folder / "result.json").unlink()
    assert not trial.is_current
