# SPDX-License-Identifier: Apache-2.0
"""docs/figures.yaml against docs/RESULTS.md, and the comparison with what was measured."""

import itertools
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from ieg_core.errors import UserError
from ieg_core.report.summary import Statistic
from ieg_core.store.records import ReportRecord, TrainingRecord
from scripts import reproduce
from scripts.reproduce import Value, compare, parse_cell
from tests.docs.test_commands import check_make, check_python

RESULTS = reproduce.ROOT / "docs" / "RESULTS.md"
DECLARED = yaml.safe_load(reproduce.FIGURES.read_text(encoding="utf-8"))
FIGURES = reproduce.read_figures()


def split_row(line):
    return [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]


def tables():
    """Returns every table of RESULTS.md: its heading, the cells of its header and of its rows."""
    found, section, lines = [], "", [*RESULTS.read_text(encoding="utf-8").splitlines(), ""]
    for number, line in enumerate(lines):
        if line.startswith("#"):
            section = line.lstrip("# ")
        if re.match(r"\|[-|]+\|$", line):
            end = next(n for n in range(number, len(lines)) if not lines[n].startswith("|"))
            rows = [split_row(each) for each in lines[number + 1 : end]]
            found.append((section, split_row(lines[number - 1]), rows))
    return found


def table_of(name):
    """Returns the table of RESULTS.md that an entry declares: its rows hold the entry's cells."""
    entry = DECLARED[name]
    header = [cell.strip() for cell in entry["header"].split("|")]
    same = [
        rows for section, head, rows in tables() if (section, head) == (entry["section"], header)
    ]
    assert same, f"{name}: no table of {RESULTS.name} has this heading and header"
    first = [row[0] for row in next(iter(same))]
    if len(same) > 1 and "rows" in entry:
        names = {row.get("cells", [key])[0] for key, row in entry["rows"].items()}
        same = [rows for rows in same if names >= {row[0] for row in rows}]
        assert same, (name, first)
    return header, same[0]


def place(header, column):
    """Returns where a column is; "last | best" is the one named best to the right of last."""
    left, _, right = column.rpartition(" | ")
    if not left:
        return header.index(column)
    (found,) = (n for n in range(1, len(header)) if header[n - 1 : n + 1] == [left, right])
    return found


def test_every_table_of_the_page_is_declared():
    declared = [
        (entry["section"], [cell.strip() for cell in entry["header"].split("|")])
        for entry in DECLARED.values()
        if "prose" not in entry
    ]
    assert sorted(declared) == sorted((section, head) for section, head, _ in tables())


@pytest.mark.parametrize("name", [name for name in DECLARED if "prose" not in DECLARED[name]])
def test_a_table_has_a_reason_or_every_row_is_declared(name):
    entry = DECLARED[name]
    assert ("reason" in entry) != ("rows" in entry)
    header, rows = table_of(name)
    if "reason" in entry:
        return
    figures = [each for each in FIGURES if each.id.startswith(f"{name}/")]
    served = set()
    others = set(entry.get("rest", {}))
    for figure in figures:
        (row,) = (each for each in rows if each[: len(figure.cells)] == list(figure.cells))
        served.add(tuple(row))
        assert figure.values
        for column, values in itertools.groupby(figure.values, lambda value: value.column):
            cell = ", ".join(value.text for value in values)
            assert row[place(header, column)] == cell, (figure.id, column)
    assert others == {row[0] for row in rows if tuple(row) not in served}


@pytest.mark.parametrize("name", [name for name in DECLARED if "prose" in DECLARED[name]])
def test_figures_of_running_text_are_quoted_from_their_section(name):
    entry = DECLARED[name]
    _, _, section = RESULTS.read_text(encoding="utf-8").partition(f"# {entry['section']}\n")
    assert entry["prose"] in " ".join(section.partition("\n#")[0].split())
    for figure in (each for each in FIGURES if each.id.startswith(f"{name}/")):
        texts = [value.text for value in figure.values]
        values = texts[:1] if len(set(texts)) == 1 else texts  # the text gives equal ones once
        assert f"{figure.cells[0]} {', '.join(values)}" in entry["prose"]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda each: each.id)
def test_a_figure_has_commands_that_can_be_given(figure):
    for value in figure.values:
        parse_cell(value.text)
    for command in figure.commands:
        words = shlex.split(command)
        (check_make if words[0] == "make" else check_python)(words[1:])
    assert figure.minutes > 0


def test_ids_are_unique_and_choose_a_row_or_a_table():
    ids = [each.id for each in FIGURES]
    assert len(set(ids)) == len(ids)
    assert [each.id for each in reproduce.choose(FIGURES, "heads/worst-linear")] == [
        "heads/worst-linear"
    ]
    assert len(reproduce.choose(FIGURES, "heads")) == 6
    with pytest.raises(UserError, match="unknown FIGURE=head: did you mean heads"):
        reproduce.choose(FIGURES, "head")


@pytest.mark.parametrize(
    ("text", "measured", "verdict", "shown"),
    [
        ("64.5 ± 5.9", Statistic(64.549, 5.91, 3), reproduce.EQUAL, "64.5 ± 5.9"),
        ("64.5 ± 5.9", Statistic(64.549, 5.96, 3), reproduce.WITHIN, "64.5 ± 6.0"),
        ("64.5 ± 5.9", Statistic(70.4, 1.0, 3), reproduce.WITHIN, "70.4 ± 1.0"),
        ("64.5 ± 5.9", Statistic(70.41, 1.0, 3), reproduce.DIFFERS, "70.4 ± 1.0"),
        ("55.7", Statistic(55.74, None, 1), reproduce.EQUAL, "55.7"),
        ("55.7", Statistic(55.8, None, 1), reproduce.DIFFERS, "55.8"),
        ("86.7 %", Statistic(0.86667, None, 1), reproduce.EQUAL, "86.7"),
        ("37", Statistic(37.0, None, 1), reproduce.EQUAL, "37"),
        ("37", None, reproduce.NOT_MEASURED, ""),
    ],
)
def test_what_counts_as_equal(text, measured, verdict, shown):
    compared = compare(Value("last", text, "m"), measured)
    assert (compared.verdict, compared.measured) == (verdict, shown)


def test_a_cell_of_two_numbers_has_two_measures():
    (figure,) = reproduce.choose(FIGURES, "audit-at-half/asymmetric-0.2")
    assert figure.values[:2] == (
        Value("ieg", "1.000", "ieg.precision"),
        Value("ieg", "0.980", "ieg.recall"),
    )


def test_two_numbers_of_one_measure_are_refused():
    with pytest.raises(UserError, match=r"received the value '1.000, 0.955': expected a number"):
        parse_cell("1.000, 0.955")


def test_a_share_is_compared_in_percent_where_its_cell_is():
    compared = compare(Value("plain", "83.9", "a/plain %"), Statistic(0.8391, None, 1))
    assert (compared.verdict, compared.measured) == (reproduce.EQUAL, "83.9")
    measured = {"a/plain": Statistic(0.8, None, 1), "a/other": Statistic(0.9, None, 1)}
    assert reproduce.look_up("a/plain %", measured).mean == 0.8
    assert reproduce.look_up("a/plain | a/other | a/none", measured).mean == 0.9
    assert reproduce.look_up("a/none", measured) is None


def test_environments_of_all_commands_are_shown():
    rows = [{"backend": "tensorflow", "threads": 1}, {"backend": "jax", "threads": 1}]
    found = reproduce.environment(rows)
    assert (found["backend"], found["threads"]) == (["tensorflow", "jax"], 1)
    assert "- backend: tensorflow; jax" in reproduce.to_markdown(FIGURES[0], [], found)
    script = reproduce.script_environment(
        ["python", "-m", "scripts.feature_bench", "--threads", "2"]
    )
    assert (script["backend"], script["threads"]) == ("tensorflow", 2)
    assert script.keys() == reproduce.environment([script]).keys()
    assert all(script.values())


def test_reused_trials_are_named_once():
    rows = [{"trial": "a"}, {"trial": "b"}, {"trial": "a"}, {"device": "CPU"}]
    told = "1 of its 2 trials had been trained before and were not trained again: a"
    assert reproduce.reused_text(rows, {"a", "c"}) == told
    assert f"\n{told}.\n" in reproduce.to_markdown(FIGURES[0], [], {}, told)
    assert reproduce.reused_text(rows, {"c"}) == ""


def test_a_trial_without_a_result_has_the_environment_of_its_training(tmp_path):
    cost = {"steps": 1, "train_seconds": 1.0, "steps_per_second": 1.0, "total_seconds": 1.0}
    place = {"device": "CPU", "threads": 3, "num_replicas": 1, "num_parameters": 1}
    TrainingRecord(**cost, **place).write(tmp_path / "trials" / "a")
    row = reproduce.trained_row(tmp_path, "a")
    assert (row["trial"], row["device"], row["threads"]) == ("a", "CPU", 3)


def test_a_script_gets_the_folders_of_the_trials_before_it(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(reproduce, "_call", lambda words, captured: (given.extend(words), "")[1])
    command = "python -m scripts.record_bench --json TRIALS"
    reproduce.run(command, tmp_path, "data", ["a", "b"])
    folders = [str(tmp_path / "trials" / name) for name in "ab"]
    assert given == ["-m", "scripts.record_bench", "--json", *folders, "--data-dir=data"]


def test_lines_of_a_script_are_averaged_over_seeds():
    lines = [
        {"dataset": "a", "seed": seed, "ieg": {"average precision": value, "AUROC": None}}
        for seed, value in enumerate((0.9, 0.7))
    ]
    found = reproduce.measure_lines(lines)
    assert found["ieg.average precision"].mean == pytest.approx(0.8)
    assert found["a/ieg.average precision"].count == 2
    assert "ieg.AUROC" not in found


def test_the_rarest_classes_of_a_tail_are_the_last_three(tmp_path):
    row = {"dataset": "a", "method": "fsr", "trial": "t", "accuracy_ema_last": 0.9,
           "accuracy_ema_best": 0.9, "balanced_accuracy_ema_last": 0.7}  # fmt: skip
    rows = [row | {"per_class_accuracy_ema_last": each} for each in ([1.0, 0.5, 0.6, 0.7], None)]
    assert reproduce.measure_sweep(rows, tmp_path)["fsr.rarest"] == Statistic(60.0, None, 1)


def planned_sweep(out: Path, accuracy: float) -> None:
    rows = [
        {"dataset": "digits_uniform_0.8", "method": "mixup", "trial": f"t{seed}",
         "accuracy_ema_last": accuracy, "accuracy_ema_best": accuracy + 0.004,
         "balanced_accuracy_ema_last": None, "per_class_accuracy_ema_last": None,
         "device": "CPU", "versions": {"numpy": "1"}}
        for seed in range(3)
    ]  # fmt: skip
    folder = out / "sweeps" / "s"
    folder.mkdir(parents=True)
    ReportRecord(trials=rows).write(folder)
    (out / "latest").symlink_to(Path("sweeps") / "s")


@pytest.mark.parametrize(("accuracy", "code"), [(0.837, 0), (0.9, 1)])
def test_a_figure_is_run_compared_and_written(tmp_path, monkeypatch, capsys, accuracy, code):
    calls = []

    def call(arguments, **options):
        calls.append(arguments)
        planned_sweep(tmp_path, accuracy)
        return subprocess.CompletedProcess(arguments, 0, "")

    monkeypatch.setattr(subprocess, "run", call)
    given = ["FIGURE=digits-uniform-0.8/mixup", f"OUT={tmp_path}", "DATA_DIR=data"]
    assert reproduce.main(given) == code
    assert calls[0][1:5] == ["-m", "pipelines", "run", "noise_sweep"]
    assert {"METHODS=mixup", "SEEDS=0,1,2", "DEVICES=cpu", f"OUT={tmp_path}"} <= set(calls[0])
    written = json.loads((tmp_path / "figures" / "digits-uniform-0.8-mixup.json").read_text())
    assert written["environment"]["device"] == "CPU"
    verdicts = [each["verdict"] for each in written["compared"]]
    assert set(verdicts) == ({reproduce.WITHIN} if code == 0 else {reproduce.DIFFERS})
    printed = capsys.readouterr().out
    assert all(verdict in printed for verdict in verdicts)
    page = (tmp_path / "figures" / "digits-uniform-0.8-mixup.md").read_text()
    assert "| last | 83.7 ± 3.5 | 83.7 ± 0.0 |" in page or code
    assert "not trained again" not in page


def test_a_command_of_which_the_row_has_no_value_is_not_run(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(reproduce, "run", lambda command, *_: (asked.append(command), ({}, []))[1])
    (figure,) = reproduce.choose(FIGURES, "retrained-networks/uniform-0.4-supervised")
    assert set(reproduce.reproduce(figure, tmp_path, "data")) == {reproduce.NOT_MEASURED}
    assert asked == list(figure.commands[:2])


def test_a_command_that_fails_is_not_a_comparison(tmp_path, monkeypatch, capsys):
    def fail(arguments, **options):
        raise subprocess.CalledProcessError(1, arguments)

    monkeypatch.setattr(subprocess, "run", fail)
    assert reproduce.main(["FIGURE=folders/0", f"OUT={tmp_path}"]) == 1
    assert "folder_bench --json --seeds 0" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_ctrl_c_is_one_line(tmp_path, monkeypatch, capsys):
    def interrupt(arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupt)
    assert reproduce.main(["FIGURE=folders/0", f"OUT={tmp_path}"]) == 130
    assert "interrupted; run the same command again" in capsys.readouterr().err


def test_alone_it_lists_every_figure(capsys):
    assert reproduce.main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {each.id} " in printed for each in FIGURES)
