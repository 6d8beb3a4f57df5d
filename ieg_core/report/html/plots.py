# SPDX-License-Identifier: Apache-2.0
"""The curves of a report: accuracy against noise, learning curves, diagnostics."""

import math
from collections.abc import Mapping, Sequence

from ieg_core.report.html.charts import Chart, Frame, Style, Values, build_chart, thin, value_range
from ieg_core.report.summary import Group, accuracy_text, column_text, rate_text, statistic
from ieg_core.report.trials import Trial

WIDE = Frame(860, 400, left=52, right=168, top=16, bottom=52)
PANEL = Frame(340, 236, left=48, right=14, top=12, bottom=46)
DIAGNOSTIC = Frame(340, 236, left=60, right=14, top=12, bottom=46)
LONGEST_NAME = 12
MOST_POINTS = 120
NO_DIAGNOSTIC = ("step", "epoch", "learning_rate")
DIAGNOSTIC_NOTES = {
    "loss": "what the method minimizes, on the training batch; not comparable between methods",
    "probe loss": "loss of the looked-ahead parameters on the clean probe batch",
    "weight on clean": "share of the total example weight on correctly labeled examples",
    "clean share": "share of correctly labeled examples in the batches: the weight on clean of "
    "random weights",
    "label coefficient on clean": "mean λ of correctly labeled examples: 1 keeps the given label, "
    "0 replaces it with the pseudo-label",
    "label coefficient on noisy": "mean λ of mislabeled examples: 1 keeps the given label, 0 "
    "replaces it with the pseudo-label",
    "pseudo label accuracy": "share of the pseudo-labels whose most likely class is the true one",
    "relabelled loss": "cross-entropy with the mix of labels and pseudo-labels that λ defines",
    "weighted loss": "sum of the examples' losses, weighted",
    "consistency loss": "how much the predictions for two views of an image differ",
    "mix probe loss": "cross-entropy of mixed clean images",
    "mix pseudo label loss": "cross-entropy of mixed images with their pseudo-labels",
    "pseudo label loss": "cross-entropy with the pseudo-labels",
    "zero weights": "share of examples with weight 0, which the step ignores",
    "dictionary purity": "share of the dictionary's slots whose given label is correct",
    "dictionary repeats": "share of the dictionary's slots that repeat an example because its "
    "class has too few",
    "dictionary repeated classes": "classes with too few examples for their slots",
}

Curve = list[tuple[float, float]]


def noise_chart(groups: Sequence[Group], styles: Mapping[str, Style]) -> Chart | None:
    """Plots accuracy after the last step against the noise rate, mean and deviation over seeds.

    Args:
      groups: Groups of one data-set family.
      styles: The look of each label.

    Returns:
      The plot, or None with fewer than two points of known noise rate.
    """
    known = [g for g in groups if g.accuracy_ema_last is not None and g.noise_rate is not None]
    if len(known) < 2:
        return None
    highest = max(group.noise_rate or 0.0 for group in known)
    series = []
    for label in dict.fromkeys(group.label for group in known):
        line = sorted((g for g in known if g.label == label), key=lambda g: g.noise_rate or 0.0)
        accuracies = [g.accuracy_ema_last for g in line if g.accuracy_ema_last]
        ends_early = line[-1].noise_rate != highest
        where = f" at {rate_text(line[-1].noise_rate)}" if ends_early else ""
        name = label if has_room_for(label) else ""
        series.append(
            Values(
                name=label,
                style=styles[label],
                x=tuple(100 * (g.noise_rate or 0.0) for g in line),
                y=tuple(100 * a.mean for a in accuracies),
                deviation=tuple(a.deviation and 100 * a.deviation for a in accuracies),
                labels=tuple(
                    f"{label}, {rate_text(g.noise_rate)} noise: "
                    f"{accuracy_text(g.accuracy_ema_last)} %"
                    for g in line
                ),
                end_label=f"{name} {100 * accuracies[-1].mean:.1f}{where}".strip(),
            )
        )
    return build_chart(
        series,
        WIDE,
        title="Test accuracy against noise rate",
        x_label="noise rate, %",
        y_label="test accuracy, %",
        x_values=[x for values in series for x in values.x],
        y_range=value_range(series, ceiling=100.0),
        bars=True,
    )


def has_room_for(label: str) -> bool:
    """Returns whether a line's name fits at its end; otherwise only the legend has it."""
    return len(label) <= LONGEST_NAME


def learning_charts(groups: Sequence[Group], styles: Mapping[str, Style]) -> list[Chart]:
    """Plots the EMA parameters' test accuracy over the steps, one plot per noise rate.

    Args:
      groups: Groups of one data-set family.
      styles: The look of each label.

    Returns:
      Plots with one common y axis; none if there are no curves.
    """
    return _panels(
        groups,
        styles,
        "evaluations",
        "accuracy_ema",
        PANEL,
        y_label="test accuracy (EMA), %",
        scale=100.0,
        ceiling=100.0,
    )


def diagnostic_charts(
    groups: Sequence[Group], styles: Mapping[str, Style]
) -> dict[str, list[Chart]]:
    """Plots everything that the methods logged while training, the loss first.

    Args:
      groups: Groups of one data-set family.
      styles: The look of each label.

    Returns:
      For each logged quantity one plot per noise rate, with one common y axis.
    """
    names = {
        key
        for group in groups
        for trial in group.finished
        for record in _records(trial, "training")
        for key in record
        if key not in NO_DIAGNOSTIC
    }
    charts = {}
    for name in sorted(names, key=lambda name: (name != "loss", name)):
        title = name.replace("_", " ")
        panels = _panels(groups, styles, "training", name, DIAGNOSTIC, y_label=title)
        if panels:
            charts[title] = panels
    return charts


def mean_curve(curves: Sequence[Curve]) -> tuple[list[float], list[float], list[float | None]]:
    """Averages curves over seeds at the steps that all of them have.

    Args:
      curves: Lists of (step, value).

    Returns:
      Steps, means and sample deviations (None for a single curve).
    """
    tables = [dict(curve) for curve in curves if curve]
    if not tables:
        return [], [], []
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    values = [statistic(table[step] for table in tables) for step in steps]
    means = [value.mean if value else math.nan for value in values]
    return steps, means, [value.deviation if value else None for value in values]


def _panels(
    groups: Sequence[Group],
    styles: Mapping[str, Style],
    kind: str,
    name: str,
    frame: Frame,
    *,
    y_label: str,
    scale: float = 1.0,
    ceiling: float = math.inf,
) -> list[Chart]:
    """Plots one recorded quantity over the steps, one plot per data set, with a common y axis."""
    panels: dict[str, list[Values]] = {}
    for group in groups:
        curves = [_curve(trial, kind, name) for trial in group.finished]
        steps, means, deviations = mean_curve(curves)
        if steps:
            panels.setdefault(group.dataset, []).append(
                Values(
                    name=group.label,
                    style=styles[group.label],
                    x=tuple(steps),
                    y=tuple(scale * mean for mean in means),
                    deviation=tuple(d and scale * d for d in deviations),
                )
            )
    if not panels:
        return []
    y_range = value_range([values for each in panels.values() for values in each], ceiling)
    titles = {group.dataset: column_text(group) for group in reversed(groups)}
    return [
        build_chart(
            panels[dataset],
            frame,
            title=titles[dataset],
            x_label="step",
            y_label=y_label,
            y_range=y_range,
        )
        for dataset in dict.fromkeys(group.dataset for group in groups)
        if dataset in panels
    ]


def _records(trial: Trial, kind: str) -> Sequence[Mapping[str, float]]:
    return getattr(trial.curves, kind) if trial.curves else ()


def _curve(trial: Trial, kind: str, name: str) -> Curve:
    points = [each for each in _records(trial, kind) if name in each and "step" in each]
    return [(record["step"], record[name]) for record in thin(points, MOST_POINTS)]
