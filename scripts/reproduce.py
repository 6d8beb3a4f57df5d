# SPDX-License-Identifier: Apache-2.0
"""Runs the command behind a figure of docs/RESULTS.md again, and compares.

    make reproduce                                        # lists the figures
    make reproduce FIGURE=digits-uniform-0.8/mixup        # a row
    make reproduce FIGURE=digits-uniform-0.8              # a table, row by row

docs/figures.yaml declares the figures: for each row of a table its command, and what each of its
columns measures, and figures of running text likewise. With m the mean over seeds, f the figure and
d the deviation beside it:

equal to the digit      m and its deviation, rounded as the figure is, are the figure
within the deviation    |m − f| ≤ d
differs                 else, also where the figure has no deviation

Another processor or library changes the order of sums and so the last bits of a training, which 600
steps amplify: expect "within the deviation" there. Sweeps run on the CPU, one thread a trial, as
those of the tables did. Trials that had been trained in OUT are not trained again; the comparison
names them, and every environment in which the figure's trials were computed.
"""

import difflib
import functools
import itertools
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ieg_core.errors import UserError
from ieg_core.host import machine, runtime
from ieg_core.host.files import write_bytes_atomic
from ieg_core.host.program import Parser, program
from ieg_core.report.summary import PLUS_MINUS, Statistic, statistic
from ieg_core.report.trials import Row, load_trial
from ieg_core.store import fingerprint
from ieg_core.store.layout import latest_sweep, sweep_folder, trial_folder
from ieg_core.store.names import TRIALS
from ieg_core.store.records import AuditRecord, ReportRecord, TrainingRecord
from ieg_core.sweep.trial_records import git_revision
from pipelines import variables

ROOT: Final = Path(__file__).parents[1]
FIGURES: Final = ROOT / "docs" / "figures.yaml"

EQUAL: Final = "equal to the digit"
WITHIN: Final = "within the deviation"
DIFFERS: Final = "differs"
NOT_MEASURED: Final = "not measured"

_ACCURACIES: Final = {
    "last": "accuracy_ema_last",
    "best": "accuracy_ema_best",
    "balanced": "balanced_accuracy_ema_last",
}
_RAREST: Final = 3
_AUDITED: Final = ("average_precision", "auroc", "precision", "recall")
_ENVIRONMENT: Final = (
    *("versions", "code_version", "git_revision", "backend", "precision"),
    *("device", "processor", "threads"),
)
_ROUNDING: Final = 1e-9
_PERCENT: Final = " %"
_BEST_OF: Final = " | "
_EARLIER_TRIALS: Final = "TRIALS"
_WITHOUT_OUT: Final = ("scripts.folder_bench", "scripts.record_bench")


@dataclass(frozen=True)
class Value:
    """A cell of a row, or one of the numbers in it.

    Attributes:
      column: The heading of its column.
      text: The number, without emphasis, such as "64.5 ± 5.9".
      measure: The name of what the commands measure (`measure_sweep`, `measure_lines`), after "2: "
        for the second of them; several with " | " between them for the highest mean; with " %" at
        the end for a share that the cell has in percent.
    """

    column: str
    text: str
    measure: str


@dataclass(frozen=True)
class Figure:
    """A row of a table, and how to measure it again.

    Attributes:
      id: "<table>/<row>".
      cells: The texts of the row's first cells, which say what it is about.
      section: The heading above the table.
      commands: `make sweep …` or `python -m scripts.…`, to run one after the other; TRIALS stands
        for the folders of the trials of those before it.
      minutes: About how long one core of 2025 needs.
      values: The cells to compare.
    """

    id: str
    cells: tuple[str, ...]
    section: str
    commands: tuple[str, ...]
    minutes: float
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Compared:
    """A cell next to what was measured.

    Attributes:
      column: The heading of its column.
      expected: The cell.
      measured: What was measured, in the same form; "" if it was not.
      verdict: `EQUAL`, `WITHIN`, `DIFFERS` or `NOT_MEASURED`.
    """

    column: str
    expected: str
    measured: str
    verdict: str


@functools.cache
def read_figures() -> tuple[Figure, ...]:
    """Reads the declaration, in the order of the tables."""
    figures = []
    for table, declared in yaml.safe_load(FIGURES.read_text(encoding="utf-8")).items():
        commands = declared.get("command", [])
        commands = [commands] if isinstance(commands, str) else commands
        for name, row in declared.get("rows", {}).items():
            words = {"row": str(name), **{k: v for k, v in row.items() if isinstance(v, str)}}
            measures = declared["measures"].items()
            figures.append(
                Figure(
                    id=f"{table}/{row.get('id', name)}",
                    cells=tuple(row.get("cells", [str(name)])),
                    section=declared["section"],
                    commands=tuple(" ".join(each.format(**words).split()) for each in commands),
                    minutes=row["minutes"],
                    values=tuple(
                        Value(column, number, measure.format(**words))
                        for (column, names), text in zip(measures, row["values"], strict=True)
                        if text
                        for number, measure in zip(
                            text.split(", "),
                            names if isinstance(names, list) else [names],
                            strict=False,  # a cell may have fewer numbers than its column
                        )
                    ),
                )
            )
    return tuple(figures)


def choose(figures: Sequence[Figure], name: str) -> list[Figure]:
    """Returns the figure of an id, or those of a table.

    Raises:
      UserError: When there is no such figure.
    """
    chosen = [each for each in figures if name in (each.id, each.id.partition("/")[0])]
    if not chosen:
        known = {part: None for each in figures for part in (each.id.partition("/")[0], each.id)}
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown FIGURE={name}: {hint}make reproduce lists what there is")
    return chosen


def run(
    command: str, out: Path, data_dir: str, earlier: Sequence[str] = ()
) -> tuple[dict[str, Statistic], list[Row]]:
    """Runs a command of a figure.

    Args:
      command: The command.
      out: The results root.
      data_dir: Folder of the base data sets.
      earlier: The trials of the figure's earlier commands.

    Returns:
      Statistics over seeds by the measure's name, and rows of results.json: those of its trials or,
      if it has none, one that only says where it ran.

    Raises:
      UserError: When the sweep has no results.
      subprocess.CalledProcessError: When the command fails.
    """
    words = shlex.split(command)
    places = {"DATA_DIR": data_dir, "OUT": str(out)}
    if words[:2] == ["make", "sweep"]:
        rest = ["RUNNER=local", "DEVICES=cpu", "MAX_HOURS=1000"]
        rest += [f"{name}={value}" for name, value in places.items()]
        _call(["-m", "pipelines", "run", "noise_sweep", *words[2:], *rest])
        sweep = sweep_folder(out, latest_sweep(out))
        report = ReportRecord.read(sweep)
        if report is None:
            raise UserError(f"{sweep} has no results: run the command again")
        rows = [dict(row) for row in report.trials]
        return measure_sweep(rows, out), rows
    options = [f"--data-dir={data_dir}"]
    if words[2] not in _WITHOUT_OUT:
        options.append(f"--out={out}")
    folders = [str(trial_folder(out, trial)) for trial in earlier]
    given = [
        each for word in words[1:] for each in (folders if word == _EARLIER_TRIALS else [word])
    ]
    lines = _call([*given, *options], captured=True).splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    trials = dict.fromkeys(trial for line in found for trial in line.get("trials", ()))
    rows = [trained_row(out, trial) for trial in trials]
    return measure_lines(found), rows or [script_environment(words)]


def _call(arguments: Sequence[str], captured: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE if captured else None,
        text=True,
        check=True,
    )
    return done.stdout or ""


def measure_sweep(rows: Iterable[Row], root: Path) -> dict[str, Statistic]:
    """Computes what a sweep measured.

    Args:
      rows: The rows of its results.json.
      root: The results root, for the trials' audits.

    Returns:
      Statistics over seeds of "<data set>/<method>.<measure>": accuracies "last", "best",
      "balanced" and "rarest" (the mean over the last three classes, the rarest of a long tail) in
      percent, and the audit's "average_precision", "auroc", "precision", "recall"; also as
      "<method>.<measure>" for the last of several data sets.
    """
    values: dict[str, list[float | None]] = {}
    for row in rows:
        found = {name: row[key] for name, key in _ACCURACIES.items()}
        rarest = (row["per_class_accuracy_ema_last"] or ())[-_RAREST:]
        found["rarest"] = statistics.fmean(rarest) if rarest and None not in rarest else None
        found = {name: None if value is None else 100 * value for name, value in found.items()}
        audit, _ = AuditRecord.look(trial_folder(root, row["trial"]))
        found |= {name: getattr(audit, name) for name in _AUDITED if audit}
        for name, value in found.items():
            values.setdefault(f"{row['dataset']}/{row['method']}.{name}", []).append(value)
    measured = {name: found for name in values if (found := statistic(values[name]))}
    return measured | {name.partition("/")[2]: value for name, value in measured.items()}


def measure_lines(lines: Iterable[Mapping[str, Any]]) -> dict[str, Statistic]:
    """Computes what a script measured, from the JSON objects that it prints, one a seed.

    Returns:
      Statistics over seeds of every number, by its keys joined with "."; after the line's "dataset"
      and "/" too.
    """
    values: dict[str, list[float | None]] = {}

    def add(prefix: str, found: Mapping[str, Any]) -> None:
        for key, value in found.items():
            if isinstance(value, Mapping):
                add(f"{prefix}{key}.", value)
            elif isinstance(value, int | float):
                values.setdefault(f"{prefix}{key}", []).append(value)

    for line in lines:
        add("", line)
        if "dataset" in line:
            add(f"{line['dataset']}/", line)
    return {name: found for name in values if (found := statistic(values[name]))}


def trained_row(root: Path, trial: str) -> Row:
    """Returns a trial's row of results.json, with the environment of its training.

    A trial that was trained to be audited has no result, and so no device in its row.
    """
    row = load_trial(root, trial).row
    training, _ = TrainingRecord.look(trial_folder(root, trial))
    known = training.to_value() if training else {}
    return {**row, **{name: known[name] for name in _ENVIRONMENT if name in known}}


def script_environment(words: Sequence[str]) -> Row:
    """Returns where a script runs that trains no trial, by the keys of results.json.

    Args:
      words: Its command; `--threads` and `--dtype` are read.
    """
    options = dict(itertools.pairwise(words))
    is_command = words[2] == "scripts.folder_bench"  # it runs `ieg audit`, which uses all cores
    return {
        "versions": fingerprint.environment_versions(),
        "code_version": fingerprint.code_version(),
        "git_revision": git_revision(),
        "backend": runtime.chosen_backend(),
        "precision": options.get("--dtype", "the features' default: bfloat16 where it is fast"),
        "device": "CPU",
        "processor": machine.processor_name(),
        "threads": machine.usable_cores() if is_command else int(options.get("--threads", 1)),
    }


def environment(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the environment of a figure's rows; a list of each value where they differ."""
    found: dict[str, Any] = {}
    for name in _ENVIRONMENT:
        different = {json.dumps(row.get(name)): row.get(name) for row in rows}
        found[name] = (
            next(iter(different.values())) if len(different) == 1 else [*different.values()]
        )
    return found


def compare(value: Value, measured: Statistic | None) -> Compared:
    """Compares a cell with what was measured, as the module's docstring says."""
    number, deviation = parse_cell(value.text)
    if measured is None:
        return Compared(value.column, value.text, "", NOT_MEASURED)
    scale = 100 if value.text.endswith("%") or value.measure.endswith(_PERCENT) else 1
    decimals = len(number.partition(".")[2])
    text = f"{scale * measured.mean:.{decimals}f}"
    spread = "" if measured.deviation is None else f"{scale * measured.deviation:.{decimals}f}"
    shown = f"{text} {PLUS_MINUS} {spread}" if spread else text
    if text == number and (not deviation or spread == deviation):
        verdict = EQUAL
    elif deviation and abs(scale * measured.mean - float(number)) <= float(deviation) + _ROUNDING:
        verdict = WITHIN
    else:
        verdict = DIFFERS
    return Compared(value.column, value.text, shown, verdict)


def parse_cell(text: str) -> tuple[str, str]:
    """Returns a cell's number and its deviation, or "", as they are written.

    Raises:
      UserError: When the cell is not of this form.
    """
    match = re.fullmatch(rf"(-?\d+(?:\.\d+)?)(?: {PLUS_MINUS} (\d+(?:\.\d+)?))?(?: ?%)?", text)
    if match is None:
        raise UserError(
            f"{FIGURES.name}: received the value {text!r}: expected a number such as 64.5 or "
            f"64.5 {PLUS_MINUS} 5.9"
        )
    return match[1], match[2] or ""


def look_up(measure: str, measured: Mapping[str, Statistic]) -> Statistic | None:
    """Returns what was measured by a name (`Value.measure`): the highest mean of several."""
    names = measure.removesuffix(_PERCENT).split(_BEST_OF)
    found = [measured[name] for name in names if name in measured]
    return max(found, key=lambda each: each.mean, default=None)


def reused_text(rows: Iterable[Row], before: Iterable[str]) -> str:
    """Returns a sentence about the trials that had been trained before a figure was run, or "".

    Args:
      rows: The rows of the figure's commands.
      before: The trials that had been trained in the results root.
    """
    trials = dict.fromkeys(row["trial"] for row in rows if "trial" in row)
    reused = [trial for trial in trials if trial in set(before)]
    if not reused:
        return ""
    count = f"{len(reused)} of its {len(trials)} trials"
    return f"{count} had been trained before and were not trained again: {', '.join(reused)}"


def to_markdown(
    figure: Figure, compared: Sequence[Compared], place: Mapping[str, Any], reused: str = ""
) -> str:
    """Formats a comparison as Markdown: the command, a table, what was reused, the environment.

    Args:
      figure: What was reproduced.
      compared: Each of its figures beside the published one.
      place: The environment, by name.
      reused: Which trials had been trained before, as a sentence; "" for none.

    Returns:
      The page.
    """
    lines = [f"# {figure.id}", "", *(f"    {command}" for command in figure.commands), ""]
    lines += ["| column | published here | measured | verdict |", "|---|---|---|---|"]
    lines += [f"| {each.column} | {each.expected} | {each.measured} | {each.verdict} |"
              for each in compared]  # fmt: skip
    lines += ["", f"{reused}.", ""] if reused else [""]
    lines += [f"- {name}: {_text(value)}" for name, value in place.items() if value]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, list):
        return "; ".join(_text(each) or "unknown" for each in value)
    return str(value)


def listing(figures: Iterable[Figure]) -> Iterator[str]:
    """Yields the lines of `make reproduce` alone: a heading for each table, a line for each row."""
    section = ""
    for each in figures:
        if each.section != section:
            section = each.section
            yield f"{section} (minutes of a core; expected)"
        expected = "; ".join(f"{value.column} {value.text}" for value in each.values)
        yield f"  {each.id:<36} {each.minutes:>5g}  {expected}"


def reproduce(figure: Figure, out: Path, data_dir: str) -> list[str]:
    """Runs the commands of a figure, and prints and writes the comparison.

    Args:
      figure: The figure.
      out: The results root; the comparison goes to its folder figures/.
      data_dir: Folder of the base data sets.

    Returns:
      The verdict of each cell.

    Raises:
      UserError, subprocess.CalledProcessError: As `run`.
    """
    before = {each.name for each in (out / TRIALS).glob("*") if TrainingRecord.exists(each)}
    measured: dict[str, Statistic] = {}
    rows: list[Row] = []
    numbers = {number if mark else "" for number, mark, _ in
               (each.measure.partition(": ") for each in figure.values)}  # fmt: skip
    for number, command in enumerate(figure.commands, start=1):
        if not numbers & {"", str(number)}:
            continue  # the row has no value of it
        print(f"{figure.id}: {command}", flush=True)
        trials = list(dict.fromkeys(row["trial"] for row in rows if "trial" in row))
        found, ran = run(command, out, data_dir, trials)
        rows += ran
        measured |= found | {f"{number}: {name}": each for name, each in found.items()}
    compared = [compare(each, look_up(each.measure, measured)) for each in figure.values]
    for each in compared:
        measured_text = each.measured or "nothing"
        print(f"  {each.column}: {each.expected}, measured {measured_text}: {each.verdict}")
    place, reused = environment(rows), reused_text(rows, before)
    if reused:
        print(f"  {reused}")
    page = out / "figures" / f"{figure.id.replace('/', '-')}.md"
    document = {
        **asdict(figure),
        "compared": [asdict(each) for each in compared],
        "reused": reused,
        "environment": place,
    }
    page.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(page, to_markdown(figure, compared, place, reused).encode())
    write_bytes_atomic(page.with_suffix(".json"), f"{json.dumps(document, indent=1)}\n".encode())
    print(f"  {page}", flush=True)
    return [each.verdict for each in compared]


@program("ieg")
def main(arguments: Sequence[str] | None = None) -> int:
    """Lists the figures, or runs and compares; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = Parser(description=__doc__)
    variables.add_arguments(parser, "reproduce")
    asked = parser.parse_args(variables.as_flags("reproduce", given))
    figures = read_figures()
    if not asked.figure:
        print(*listing(figures), sep="\n", flush=True)
        return 0
    out, data_dir = Path(os.path.abspath(asked.out)), os.path.abspath(asked.data_dir)
    verdicts = []
    for figure in choose(figures, asked.figure):
        verdicts += reproduce(figure, out, data_dir)
    return int(any(verdict in (DIFFERS, NOT_MEASURED) for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
