# SPDX-License-Identifier: Apache-2.0
"""Which curves a report shows: accuracy against noise, learning curves, diagnostics."""

import math
from collections.abc import Mapping, Sequence

from ieg_core.report.html.charts import Chart, Frame, Style, Values, build_chart, thin, value_range
from ieg_core.report.summary import Group, accuracy_text, column_text, rate_text, statistic
from ieg_core.report.trials import FINISHED, Trial

WIDE = Frame(860, 400, left=52, right=168, top=16, bottom=52)
PANEL = Frame(340, 236, left=48, right=14, top=12, bottom=46)
DIAGNOSTIC = Frame(340, 236, left=60, right=14, top=12, bottom=46)
LONGEST_NAME = 12
MOST_POINTS = 120
NO_DIAGNOSTIC = ("step", "epoch", "learning_rate")
DIAGNOSTIC_NOTES = {
    "loss": "what the method minimises, on the training batch; not comparable between methods",
    "probe loss": "loss of the looked-ahead parameters on the clean probe batch",
    "weight on clean": "share of all example weight that lies on rightly labelled examples",
    "clean share": "share of rightly labelled examples in the batches: weight on clean if "
    "weights were drawn blindly",
    "label coefficient on clean": "mean λ of rightly labelled examples: 1 keeps the given label, 0 "
    "takes the pseudo-label in its place",
    "label coefficient on noisy": "mean λ of wrongly labelled examples: 1 keeps the given label, 0 "
    "takes the pseudo-label in its place",
    "pseudo label accuracy": "share of the pseudo-labels whose likeliest class is the true one",
    "relabelled loss": "cross-entropy with what λ leaves of labels and pseudo-labels",
    "weighted loss": "sum of the examples' weights times their losses",
    "consistency loss": "how differently the network sees two views of an image",
    "mix probe loss": "cross-entropy of mixed clean images",
    "mix pseudo label loss": "cross-entropy of mixed images with their pseudo-labels",
    "pseudo label loss": "cross-entropy with the pseudo-labels",
    "zero weights": "share of examples with weight 0, which the step ignores",
    "dictionary purity": "share of the dictionary's places whose given label is right",
    "dictionary repeats": "share of the dictionary's places that repeat an example, because its "
    "class has too few",
    "dictionary repeated classes": "classes with too few examples for their places",
}

Curve = list[tuple[float, float]]


def noise_chart(groups: Sequence[Group], styles: Mapping[str, Style]) -> Chart | None:
    """Plots accuracy after the last step against the noise rate, mean and deviation over seeds.

    Args:
      groups: Groups of one data-set family.
      styles: The look of each label.

    Returns:
      The plot, or None if there are fewer than two points or the noise rates are unknown.
    """
    known = [g for g in groups if g.accuracy_ema_last is not None and g.noise_rate is not None]
    if len(known) < 2:
        return None
    highest = max(group.noise_rate or 0.0 for group in known)
    series = []
    for label in dict.fromkeys(group.label for group in known):
        own = sorted((g for g in known if g.label == label), key=lambda g: g.noise_rate or 0.0)
        found = [g.accuracy_ema_last for g in own if g.accuracy_ema_last]
        ends_early = own[-1].noise_rate != highest
        where = f" at {rate_text(own[-1].noise_rate)}" if ends_early else ""
        name = label if has_room_for(label) else ""
        series.append(
            Values(
                name=label,
                style=styles[label],
                x=tuple(100 * (g.noise_rate or 0.0) for g in own),
                y=tuple(100 * value.mean for value in found),
                deviation=tuple(v.deviation and 100 * v.deviation for v in found),
                labels=tuple(
                    f"{label}, {rate_text(g.noise_rate)} noise: "
                    f"{accuracy_text(g.accuracy_ema_last)} %"
                    for g in own
                ),
                end_label=f"{name} {100 * found[-1].mean:.1f}{where}".strip(),
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
    """Returns whether a line's name has room at its end; else the legend alone has it."""
    return len(label) <= LONGEST_NAME


def learning_charts(
    groups: Sequence[Group], trials: Mapping[str, Trial], styles: Mapping[str, Style]
) -> list[Chart]:
    """Plots the EMA parameters' test accuracy over the steps, a plot for each noise rate.

    Args:
      groups: Groups of one data-set family.
      trials: The sweep's trials by name.
      styles: The look of each label.

    Returns:
      Plots with one common y axis; none if there are no curves.
    """
    panels = {
        dataset: _panel(own, trials, styles, "evaluations", "accuracy_ema", 100.0)
        for dataset, own in _by_dataset(groups).items()
    }
    everything = [values for series in panels.values() for values in series]
    if not everything:
        return []
    y_range = value_range(everything, ceiling=100.0)
    return [
        _panel_chart(series, PANEL, column_text(own[0]), "test accuracy (EMA), %", y_range)
        for series, own in zip(panels.values(), _by_dataset(groups).values(), strict=True)
        if series
    ]


def diagnostic_charts(
    groups: Sequence[Group], trials: Mapping[str, Trial], styles: Mapping[str, Style]
) -> dict[str, list[Chart]]:
    """Plots whatever the methods logged while training, the loss first.

    Args:
      groups: Groups of one data-set family.
      trials: The sweep's trials by name.
      styles: The look of each label.

    Returns:
      For each logged quantity a plot for each noise rate, with one common y axis.
    """
    names = {
        key
        for group in groups
        for trial in _finished(group, trials)
        for record in _records(trial, "training")
        for key in record
        if key not in NO_DIAGNOSTIC
    }
    result = {}
    for name in sorted(names, key=lambda name: (name != "loss", name)):
        panels = [
            (own, _panel(own, trials, styles, "training", name, 1.0))
            for own in _by_dataset(groups).values()
        ]
        everything = [values for _, series in panels for values in series]
        if everything:
            title, y_range = name.replace("_", " "), value_range(everything)
            result[title] = [
                _panel_chart(series, DIAGNOSTIC, column_text(own[0]), title, y_range)
                for own, series in panels
                if series
            ]
    return result


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
    found = [statistic(table[step] for table in tables) for step in steps]
    means = [value.mean if value else math.nan for value in found]
    return steps, means, [value.deviation if value else None for value in found]


def _panel(
    groups: Sequence[Group],
    trials: Mapping[str, Trial],
    styles: Mapping[str, Style],
    kind: str,
    name: str,
    scale: float,
) -> list[Values]:
    series = []
    for group in groups:
        curves = [_curve(trial, kind, name) for trial in _finished(group, trials)]
        steps, means, deviations = mean_curve(curves)
        if steps:
            series.append(
                Values(
                    name=group.label,
                    style=styles[group.label],
                    x=tuple(steps),
                    y=tuple(scale * mean for mean in means),
                    deviation=tuple(d and scale * d for d in deviations),
                )
            )
    return series


def _panel_chart(
    series: Sequence[Values], frame: Frame, title: str, y_label: str, y_range: tuple[float, float]
) -> Chart:
    return build_chart(series, frame, title=title, x_label="step", y_label=y_label, y_range=y_range)


def _by_dataset(groups: Sequence[Group]) -> dict[str, list[Group]]:
    datasets: dict[str, list[Group]] = {}
    for group in groups:
        datasets.setdefault(group.dataset, []).append(group)
    return datasets


def _finished(group: Group, trials: Mapping[str, Trial]) -> list[Trial]:
    return [trials[row["trial"]] for row in group.rows if row["status"] == FINISHED]


def _records(trial: Trial, kind: str) -> Sequence[Mapping[str, float]]:
    return getattr(trial.curves, kind) if trial.curves else ()


def _curve(trial: Trial, kind: str, name: str) -> Curve:
    points = [each for each in _records(trial, kind) if name in each and "step" in each]
    return [(record["step"], record[name]) for record in thin(points, MOST_POINTS)]
