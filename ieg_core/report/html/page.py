# SPDX-License-Identifier: Apache-2.0
"""report.html: one file, no script, nothing loaded from elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieg_core.experiment import methods
from ieg_core.host.progress import duration
from ieg_core.host.templates import load_template
from ieg_core.report.audits import MEASURES
from ieg_core.report.comparison import Contest, compare
from ieg_core.report.expected import NOTE
from ieg_core.report.html import charts
from ieg_core.report.html.charts import Chart, Style
from ieg_core.report.html.matrix import Confusion, build_confusion
from ieg_core.report.html.plots import (
    Diagnostic,
    diagnostic_charts,
    has_room_for,
    learning_charts,
    noise_chart,
)
from ieg_core.report.html.weights import WeightView, weight_views
from ieg_core.report.live import Live
from ieg_core.report.model import Report
from ieg_core.report.provenance import flat_settings
from ieg_core.report.summary import (
    Group,
    Statistic,
    accuracy_text,
    column_text,
    eval_set_names,
    gpu_hours_text,
    number_text,
    seeds_text,
    statistic,
    steps_text,
    wrong_text,
)
from ieg_core.report.tables import changes_table
from ieg_core.report.trials import FINISHED, Row, method_key, parse_dataset

TEMPLATE = Path(__file__).with_name("report.html.j2")
LOG_CHARACTERS = 4000
MOST_COLUMNS = 5
"""The most noise rates with which a line of the results also has room for the costs."""
MOST_OPEN, SHOWN_OPEN = 9, 3
"""With more than 9 noise rates, the plots of all but the 3 highest are collapsed."""
TRIAL_COLUMNS = {
    "dataset": "data set",
    "method": "method",
    "seed": "seed",
    "status": "status",
    "accuracy_ema_last": "last, EMA",
    "accuracy_ema_best": "best on test, EMA",
    "accuracy_last": "last, raw",
    "accuracy_best": "best on test, raw",
    "top5_ema_last": "top 5, EMA",
    "balanced_accuracy_ema_last": "balanced, EMA",
    "steps_per_second": "steps/s",
    "total_seconds": "seconds",
    "gpu_hours": "GPU-hours",
    "run_directory": "folder",
}


@dataclass(frozen=True)
class Entry:
    """One method at one noise rate in the results table, as text.

    Attributes:
      state: What its trials do, if none has finished: "no result", or "training" and so on.
    """

    mean: str
    deviation: str
    leads: bool
    best: str
    balanced: str
    seeds: str
    state: str


@dataclass(frozen=True)
class Line:
    """One method's line of the results table; one entry per noise rate, None if not planned."""

    label: str
    method: str
    style: Style
    clean_labels_used: str
    entries: tuple[Entry | None, ...]
    steps: str
    steps_per_second: str
    seconds: str
    gpu_hours: str


@dataclass(frozen=True)
class EvalSetTable:
    """Accuracy on an additional test set: (mean, deviation, leads) per method and noise rate."""

    name: str
    lines: tuple[tuple[str, Style, tuple[tuple[str, str, bool], ...]], ...]


@dataclass(frozen=True)
class FamilyView:
    """What the page shows of one data set under its noise rates."""

    name: str
    noise: str
    columns: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    eval_sets: tuple[EvalSetTable, ...]
    noise_chart: Chart | None
    learning: list[Chart]
    diagnostics: list[Diagnostic]
    confusions: dict[str, list[Confusion]]
    weights: list[WeightView]


@dataclass(frozen=True)
class SettingsView:
    """Settings that all trials share, and those that depend on the method."""

    shared: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    varying: tuple[tuple[str, tuple[str, ...]], ...]


def render(report: Report, live: Live | None = None) -> str:
    """Renders a report as a complete HTML document; the same report gives the same bytes.

    Args:
      report: The report.
      live: The progress, while trials run: the page then shows it with the results so far, and
        loads itself again; what takes long to draw or may still change is left for the end.
    """
    rows, groups = report.rows, report.groups
    labels = _labels(groups)
    looks = charts.looks(dict(labels), list(methods.METHODS))
    return load_template(TEMPLATE, glue).render(
        report=report,
        live=live,
        facts=_facts(rows),
        legend=[(label, looks[label], _summary(method)) for label, method in labels],
        names_at_ends=all(has_room_for(label) for label, _ in labels),
        families=[
            _family_view(name, members, looks, report.contests, live)
            for name, members in report.families.items()
        ],
        audit_measures=MEASURES.values(),
        changes=changes_table(report.changes) if report.changes else [],
        published_note=NOTE,
        log_characters=LOG_CHARACTERS,
        most_columns=MOST_COLUMNS,
        most_open=MOST_OPEN,
        shown_open=SHOWN_OPEN,
        trial_header=list(TRIAL_COLUMNS.values()),
        trial_lines=[[_trial_text(key, row[key]) for key in TRIAL_COLUMNS] for row in rows],
        settings=settings_view(groups),
        versions=_versions(rows),
    )


def settings_view(groups: Sequence[Group]) -> SettingsView:
    """Splits the resolved configurations into common settings and those that vary by method.

    Args:
      groups: All groups of the sweep.

    Returns:
      The settings by dotted keys; if the trials of a line have several values, all of them.
    """
    known = [
        (group.label, flat_settings(trial.settings))
        for group in groups
        for trial in group.trials
        if trial.settings
    ]
    labels = tuple(dict.fromkeys(label for label, _ in known))
    values: dict[str, dict[str, list[str]]] = {}
    for label, flat in known:
        for key, value in flat.items():
            texts = values.setdefault(key, {}).setdefault(label, [])
            if value not in texts:
                texts.append(value)
    shared, varying = [], []
    for key, by_label in values.items():
        line = tuple(", ".join(by_label.get(label, ["-"])) for label in labels)
        if len(set(line)) == 1:
            shared.append((key, line[0]))
        else:
            varying.append((key, line))
    return SettingsView(tuple(shared), labels, tuple(varying))


def glue(text: str) -> str:
    """Puts a no-break space between a number and its percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _family_view(
    name: str,
    groups: Sequence[Group],
    looks: Mapping[str, Style],
    contests: Mapping[str, Contest],
    live: Live | None,
) -> FamilyView:
    datasets = {group.dataset: group for group in groups}
    parsed = parse_dataset(groups[0].rows[0])
    lines = []
    for label, method in _labels(groups):
        by_dataset = {group.dataset: group for group in groups if group.label == label}
        rows = [trial.row for group in by_dataset.values() for trial in group.finished]
        clean = next(iter(by_dataset.values())).clean_labels_used
        lines.append(
            Line(
                label=label,
                method=method,
                style=looks[label],
                clean_labels_used="?" if clean is None else f"{clean:,}",
                entries=tuple(
                    _entry(by_dataset.get(each), contests[each], live) for each in datasets
                ),
                steps=steps_text(rows),
                steps_per_second=number_text(statistic(row["steps_per_second"] for row in rows)),
                seconds=number_text(statistic(row["total_seconds"] for row in rows)),
                gpu_hours=gpu_hours_text(statistic(row.get("gpu_hours") for row in rows)),
            )
        )
    confusions: dict[str, list[Confusion]] = {}
    for group in () if live else groups:
        known = [(t.confusion, t.class_names) for t in group.finished if t.confusion is not None]
        if known:
            class_names = known[0][1]
            # Seeds of one data set have the same classes; a stray matrix must not break the sum.
            matrices = [matrix for matrix, names in known if names == class_names]
            view = build_confusion(group.label, matrices, class_names)
            confusions.setdefault(column_text(datasets[group.dataset]), []).append(view)
    return FamilyView(
        name=name,
        noise=(parsed.noise or "") if parsed else "",
        columns=tuple((column_text(group), wrong_text(group)) for group in datasets.values()),
        lines=tuple(lines),
        eval_sets=tuple(
            _eval_set_table(name, groups, lines, datasets) for name in eval_set_names(groups)
        ),
        noise_chart=noise_chart(groups, looks),
        learning=learning_charts(groups, looks),
        diagnostics=[] if live else diagnostic_charts(groups, looks),
        confusions=confusions,
        weights=weight_views(groups),
    )


def _entry(group: Group | None, contest: Contest, live: Live | None) -> Entry | None:
    if group is None:
        return None
    finished = len(group.finished) == len(group.trials)
    return Entry(
        *_accuracy(group.accuracy_ema_last),
        leads=contest.leads(group),
        best=accuracy_text(_mean_only(group.accuracy_ema_best)),
        balanced=accuracy_text(group.balanced_accuracy) if group.balanced_accuracy else "",
        seeds="" if finished else f"{seeds_text(group)} finished",
        state=_state(group, live),
    )


def _state(group: Group, live: Live | None) -> str:
    """Returns what the trials of a group without a result do, the busiest of them."""
    states = live.states if live else {}
    trial_states = [states.get(str(row["trial"]), "") for row in group.rows]
    busy = [state for state in trial_states if state and state != "waiting"]
    return next(iter([*busy, *filter(None, trial_states)]), "no result")


def _accuracy(value: Statistic | None) -> tuple[str, str]:
    """Returns the mean and the deviation."""
    if value is None:
        return "", ""
    mean, _, deviation = accuracy_text(value).partition(" ")
    return mean, deviation


def _eval_set_table(
    name: str, groups: Sequence[Group], lines: Sequence[Line], datasets: Iterable[str]
) -> EvalSetTable:
    by_place = {(group.label, group.dataset): group for group in groups}

    def figure(row: Row) -> float | None:
        figures = (row.get("eval_sets") or {}).get(name)
        return figures.get("accuracy_ema") if isinstance(figures, dict) else None

    contests = {d: compare([g for g in groups if g.dataset == d], figure) for d in datasets}

    def entry(label: str, dataset: str) -> tuple[str, str, bool]:
        group = by_place.get((label, dataset))
        if group is None:
            return "", "", False
        return *_accuracy(group.eval_sets.get(name)), contests[dataset].leads(group)

    return EvalSetTable(
        name,
        tuple(
            (line.label, line.style, tuple(entry(line.label, dataset) for dataset in contests))
            for line in lines
        ),
    )


def _labels(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Returns (label, method) of every line, in the order of the methods."""
    labels = {group.label: group.method for group in groups}
    return sorted(labels.items(), key=lambda item: (method_key(item[1]), item[0]))


def _mean_only(value: Statistic | None) -> Statistic | None:
    return value and Statistic(value.mean, None, value.count)


def _summary(method: str) -> str:
    return methods.METHODS[method].summary if method in methods.METHODS else ""


def _facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    done = sum(row["status"] == FINISHED for row in rows)
    seconds = sum(row["total_seconds"] or 0.0 for row in rows)
    hours = sum(row.get("gpu_hours") or 0.0 for row in rows)
    facts = [
        ("trials", f"{len(rows)}" if done == len(rows) else f"{done} of {len(rows)} finished"),
        ("seeds", _values(rows, "seed")),
        ("recipe", _values(rows, "recipe")),
        ("network", _values(rows, "network")),
        ("steps", _values(rows, "steps")),
        ("computed with", f"{_values(rows, 'backend')}, {_values(rows, 'precision')}"),
        ("device", _values(rows, "device")),
        ("processor", _values(rows, "processor")),
        ("time, all trials", duration(seconds) if seconds else ""),
        ("GPU-hours, all trials", f"{hours:.3g}" if hours else ""),
    ]
    return [(term, value) for term, value in facts if value.strip(", ")]


def _values(rows: Sequence[Row], key: str) -> str:
    values = dict.fromkeys(row[key] for row in rows if row[key] is not None)
    return ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values)


def _trial_text(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{100 * value:.1f}" if "accuracy" in key or "top5" in key else f"{value:.4g}"
    return str(value)


def _versions(rows: Sequence[Row]) -> list[tuple[str, str]]:
    by_name: dict[str, dict[str, None]] = {}
    for row in rows:
        versions = row["versions"] if isinstance(row["versions"], dict) else {}
        code = {"code that determines outcomes": row["code_version"], "git": row["git_revision"]}
        for name, version in {**code, **versions}.items():
            if version:
                by_name.setdefault(str(name), {})[str(version)] = None
    return [(name, ", ".join(versions)) for name, versions in by_name.items()]
