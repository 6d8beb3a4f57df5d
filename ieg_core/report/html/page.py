# SPDX-License-Identifier: Apache-2.0
"""report.html: one file, no script, nothing loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ieg_core.experiment import methods
from ieg_core.report.expected import NOTE
from ieg_core.report.html import charts
from ieg_core.report.html.charts import Chart, Style
from ieg_core.report.html.matrix import Confusion, build_confusion
from ieg_core.report.html.plots import (
    DIAGNOSTIC_NOTES,
    diagnostic_charts,
    has_room_for,
    learning_charts,
    noise_chart,
)
from ieg_core.report.html.weights import WeightView, weight_views
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

TEMPLATE = "report.html.j2"
LOG_CHARACTERS = 4000
COST_BESIDE = 5
"""Noise rates up to which a line of the results has room for the costs."""
MOST_OPEN, SHOWN_OPEN = 9, 3
"""With more noise rates than the first, plots of all but the highest ones are folded away."""
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
    """One method at one noise rate in the results table, already as text."""

    mean: str
    deviation: str
    best: str
    balanced: str
    seeds: str
    leads: bool


@dataclass(frozen=True)
class Line:
    """One method's line of the results table; an entry a noise rate, None if not planned."""

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
    """Accuracy on a further test set: for each method, an entry a noise rate; "" without one."""

    name: str
    lines: tuple[tuple[str, Style, tuple[tuple[str, str, bool], ...]], ...]


@dataclass(frozen=True)
class FamilyView:
    """Everything that the page shows of one data set under its noise rates."""

    name: str
    noise: str
    columns: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    eval_sets: tuple[EvalSetTable, ...]
    noise_chart: Chart | None
    learning: list[Chart]
    diagnostics: dict[str, list[Chart]]
    confusions: dict[str, list[Confusion]]
    weights: list[WeightView]


@dataclass(frozen=True)
class SettingsView:
    """Settings that all trials share, and those that depend on the line of the results."""

    shared: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    varying: tuple[tuple[str, tuple[str, ...]], ...]


def render(report: Report) -> str:
    """Renders a report as a complete HTML document; the same report gives the same bytes."""
    rows, groups = report.rows, report.groups
    labels = sorted({group.label: group.method for group in groups}.items(), key=_label_key)
    looks = charts.looks(dict(labels), list(methods.METHODS))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["glue"] = glue
    return environment.get_template(TEMPLATE).render(
        report=report,
        facts=_facts(rows),
        legend=[(label, looks[label], _summary(method)) for label, method in labels],
        names_at_ends=all(has_room_for(label) for label, _ in labels),
        families=[_family_view(name, members, looks) for name, members in report.families.items()],
        changes=changes_table(report.changes) if report.changes else [],
        published_note=NOTE,
        diagnostic_notes=DIAGNOSTIC_NOTES,
        log_characters=LOG_CHARACTERS,
        cost_beside=COST_BESIDE,
        most_open=MOST_OPEN,
        shown_open=SHOWN_OPEN,
        trial_header=list(TRIAL_COLUMNS.values()),
        trial_lines=[_trial_line(row) for row in rows],
        settings=settings_view(groups),
        versions=_versions(rows),
    )


def settings_view(groups: Sequence[Group]) -> SettingsView:
    """Splits the resolved configurations into what is common and what depends on the method.

    Args:
      groups: All groups of the sweep.

    Returns:
      Keys by dots; a setting with several values within a line's trials shows all of them.
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
            found = values.setdefault(key, {}).setdefault(label, [])
            if value not in found:
                found.append(value)
    shared, varying = [], []
    for key, by_label in values.items():
        texts = tuple(", ".join(by_label.get(label, ["-"])) for label in labels)
        if len(set(texts)) == 1:
            shared.append((key, texts[0]))
        else:
            varying.append((key, texts))
    return SettingsView(tuple(shared), labels, tuple(varying))


def glue(text: str) -> str:
    """Keeps a number and its per cent sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def duration(seconds: float) -> str:
    """Formats a time span, for example "43 s", "8 min 5 s" or "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _family_view(name: str, groups: Sequence[Group], looks: Mapping[str, Style]) -> FamilyView:
    datasets = {group.dataset: group for group in groups}
    parsed = parse_dataset(groups[0].rows[0])
    labels = sorted({group.label: group.method for group in groups}.items(), key=_label_key)
    lines = []
    for label, method in labels:
        own = {group.dataset: group for group in groups if group.label == label}
        rows = [trial.row for group in own.values() for trial in group.finished]
        clean = next(iter(own.values())).clean_labels_used
        lines.append(
            Line(
                label=label,
                method=method,
                style=looks[label],
                clean_labels_used="?" if clean is None else f"{clean:,}",
                entries=tuple(_entry(own.get(dataset), groups) for dataset in datasets),
                steps=steps_text(rows),
                steps_per_second=number_text(statistic(row["steps_per_second"] for row in rows)),
                seconds=number_text(statistic(row["total_seconds"] for row in rows)),
                gpu_hours=gpu_hours_text(statistic(row.get("gpu_hours") for row in rows)),
            )
        )
    confusions: dict[str, list[Confusion]] = {}
    for group in groups:
        found = [trial for trial in group.finished if trial.confusion is not None]
        # Seeds of one data set have one set of classes; a stray matrix must not break the sum.
        found = [trial for trial in found if trial.class_names == found[0].class_names]
        if found:
            matrices = [trial.confusion for trial in found if trial.confusion is not None]
            view = build_confusion(group.label, matrices, found[0].class_names)
            confusions.setdefault(group.dataset, []).append(view)
    return FamilyView(
        name=name,
        noise=(parsed.noise or "") if parsed else "",
        columns=tuple((column_text(group), wrong_text(group)) for group in datasets.values()),
        lines=tuple(lines),
        eval_sets=tuple(
            _eval_set_table(name, groups, [(line.label, line.style) for line in lines])
            for name in eval_set_names(groups)
        ),
        noise_chart=noise_chart(groups, looks),
        learning=learning_charts(groups, looks),
        diagnostics=diagnostic_charts(groups, looks),
        confusions={column_text(datasets[dataset]): views for dataset, views in confusions.items()},
        weights=weight_views(groups),
    )


def _entry(group: Group | None, groups: Sequence[Group]) -> Entry | None:
    if group is None:
        return None
    rivals = [
        rival.accuracy_ema_last.mean
        for rival in groups
        if rival.dataset == group.dataset and rival.accuracy_ema_last
    ]
    accuracy = group.accuracy_ema_last
    mean, _, deviation = accuracy_text(accuracy).partition(" ")
    missing = "" if len(group.finished) == len(group.trials) else f"{seeds_text(group)} finished"
    return Entry(
        mean=mean if accuracy else "",
        deviation=deviation,
        best=accuracy_text(_mean_only(group.accuracy_ema_best)),
        balanced=accuracy_text(group.balanced_accuracy) if group.balanced_accuracy else "",
        seeds=missing,
        leads=bool(accuracy) and len(rivals) > 1 and accuracy is not None
        and accuracy.mean == max(rivals),
    )  # fmt: skip


def _eval_set_table(
    name: str, groups: Sequence[Group], labels: Sequence[tuple[str, Style]]
) -> EvalSetTable:
    found = {(g.label, g.dataset): g.eval_sets[name] for g in groups if name in g.eval_sets}
    datasets = list(dict.fromkeys(group.dataset for group in groups))

    def entry(label: str, dataset: str) -> tuple[str, str, bool]:
        accuracy = found.get((label, dataset))
        if accuracy is None:
            return "", "", False
        rivals = [other.mean for (_, where), other in found.items() if where == dataset]
        mean, _, deviation = accuracy_text(accuracy).partition(" ")
        return mean, deviation, len(rivals) > 1 and accuracy.mean == max(rivals)

    lines = [
        (label, style, tuple(entry(label, dataset) for dataset in datasets))
        for label, style in labels
    ]
    return EvalSetTable(name, tuple(lines))


def _mean_only(value: Statistic | None) -> Statistic | None:
    return value and Statistic(value.mean, None, value.count)


def _label_key(item: tuple[str, str]) -> tuple[tuple[int, str], str]:
    label, method = item
    return method_key(method), label


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
        ("time, all trials", duration(seconds) if seconds else ""),
        ("GPU-hours, all trials", f"{hours:.3g}" if hours else ""),
    ]
    return [(term, value) for term, value in facts if value.strip(", ")]


def _values(rows: Sequence[Row], key: str) -> str:
    found = dict.fromkeys(row[key] for row in rows if row[key] is not None)
    return ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in found)


def _trial_line(row: Row) -> list[str]:
    return [_trial_text(key, row[key]) for key in TRIAL_COLUMNS]


def _trial_text(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{100 * value:.1f}" if "accuracy" in key or "top5" in key else f"{value:.4g}"
    return str(value)


def _versions(rows: Sequence[Row]) -> list[tuple[str, str]]:
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        versions = row["versions"] if isinstance(row["versions"], dict) else {}
        code = {"code that decides outcomes": row["code_version"], "git": row["git_revision"]}
        for name, version in {**code, **versions}.items():
            if version:
                found.setdefault(str(name), {})[str(version)] = None
    return [(name, ", ".join(versions)) for name, versions in found.items()]
