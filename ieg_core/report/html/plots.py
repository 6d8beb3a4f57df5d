# SPDX-License-Identifier: Apache-2.0
"""The curves of a report: accuracy against noise, learning curves, diagnostics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ieg_core.report.html.charts import (
    Chart,
    Frame,
    Style,
    Values,
    build_chart,
    spans_decades,
    thin,
    value_range,
)
from ieg_core.report.summary import Group, accuracy_text, column_text, rate_text, statistic
from ieg_core.report.trials import Trial

WIDE = Frame(860, 400, left=52, right=168, top=16, bottom=52)
PANEL = Frame(440, 264, left=62, right=112, top=12, bottom=46)
LONGEST_NAME = 12
LABEL_GAP, BOLD = 16.0, 8.7
"""Before a label at a line's end, and for each of its characters, in SVG units."""
MOST_POINTS = 120
NO_DIAGNOSTIC = ("step", "epoch", "learning_rate")


@dataclass(frozen=True)
class Reading:
    """The unit of a logged quantity, and how to read its curves."""

    unit: str
    note: str


READINGS = {
    "loss": Reading(
        "nats",
        "What the method minimizes, on its training batches. Losses of different methods are not "
        "comparable; one that falls to zero while the test accuracy falls is memorizing noise.",
    ),
    "probe_loss": Reading(
        "nats",
        "Cross-entropy of the looked-ahead parameters on the trusted batch: lower is better, but "
        "near zero the trusted images are memorized and no longer tell good labels from bad ones.",
    ),
    "weight_on_clean": Reading(
        "share",
        "Share of the total weight on correctly labeled examples: above the clean share, the "
        "method finds wrong labels; at 1, it ignores all of them.",
    ),
    "clean_share": Reading(
        "share",
        "Share of correctly labeled examples in the batches: the weight on clean if all weights "
        "were equal, and so its baseline.",
    ),
    "label_coefficient_on_clean": Reading(
        "mean λ",
        "Mean λ of correctly labeled examples: 1 keeps the given label, 0 replaces it with the "
        "pseudo-label, so higher is better.",
    ),
    "label_coefficient_on_noisy": Reading(
        "mean λ",
        "Mean λ of mislabeled examples: 1 keeps the given label, 0 replaces it with the "
        "pseudo-label, so lower is better.",
    ),
    "pseudo_label_accuracy": Reading(
        "share",
        "Share of the pseudo-labels whose most likely class is the true one: above the clean "
        "share, they are better than the given labels.",
    ),
    "most_frequent_pseudo_label": Reading(
        "share",
        "Share of the pseudo-labels that are of their most frequent class: at 1, all images get "
        "the same one, and nothing is learned from them (docs/early-collapse.md).",
    ),
    "relabelled_loss": Reading(
        "nats",
        "Cross-entropy with the mix of given and pseudo-labels that λ defines: it falls as the "
        "network comes to agree with them.",
    ),
    "weighted_loss": Reading(
        "nats",
        "Weighted sum of the examples' losses: read its trend, not its level, since the weights "
        "change what is summed.",
    ),
    "consistency_loss": Reading(
        "nats",
        "How much the predictions for two views of an image differ: 0 if the augmentation changes "
        "nothing.",
    ),
    "mix_probe_loss": Reading(
        "nats",
        "Cross-entropy of mixed clean images: the mixed labels keep it above zero even for a "
        "perfect network.",
    ),
    "mix_pseudo_label_loss": Reading(
        "nats",
        "Cross-entropy of mixed images with their pseudo-labels: the mixed labels keep it above "
        "zero even for a perfect network.",
    ),
    "pseudo_label_loss": Reading(
        "nats",
        "Cross-entropy with the pseudo-labels: it falls as predictions and pseudo-labels come to "
        "agree, right or wrong.",
    ),
    "zero_weights": Reading(
        "share",
        "Share of examples with weight 0, which the step ignores: the higher, the fewer images a "
        "step learns from.",
    ),
    "weight_ratio_rare_to_common": Reading(
        "ratio",
        "Mean weight of the rarest class divided by that of the most common one: above 1, the "
        "method makes up for the long tail.",
    ),
    "dictionary_purity": Reading(
        "share",
        "Share of the dictionary's slots whose given label is correct: higher is better, since the "
        "method trusts all of them.",
    ),
    "dictionary_repeats": Reading(
        "share",
        "Share of the dictionary's slots that repeat an example because its class has too few: "
        "lower is better.",
    ),
    "dictionary_repeated_classes": Reading(
        "classes",
        "Number of classes with too few examples for their slots: lower is better.",
    ),
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
    longest = max(len(values.end_label) for values in series)
    return build_chart(
        series,
        replace(WIDE, right=max(WIDE.right, LABEL_GAP + BOLD * longest)),
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
        y_label="test accuracy (EMA), %",
        scale=100.0,
        ceiling=100.0,
    )


@dataclass(frozen=True)
class Diagnostic:
    """A logged quantity: one plot per noise rate, with how to read them."""

    title: str
    note: str
    charts: tuple[Chart, ...]


def diagnostic_charts(groups: Sequence[Group], styles: Mapping[str, Style]) -> list[Diagnostic]:
    """Plots everything that the methods logged while training, the loss first.

    Args:
      groups: Groups of one data-set family.
      styles: The look of each label.

    Returns:
      The logged quantities; the plots of each have one common y axis, which is logarithmic if the
      values span decades.
    """
    names = {
        key
        for group in groups
        for trial in group.finished or group.trials
        for record in _records(trial, "training")
        for key in record
        if key not in NO_DIAGNOSTIC
    }
    diagnostics = []
    for name in sorted(names, key=lambda name: (name != "loss", name)):
        title = name.replace("_", " ")
        reading = READINGS.get(name, Reading("", ""))
        y_label = f"{title}, {reading.unit}" if reading.unit else title
        if panels := _panels(groups, styles, "training", name, y_label=y_label):
            diagnostics.append(Diagnostic(title, reading.note, tuple(panels)))
    return diagnostics


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
    *,
    y_label: str,
    scale: float = 1.0,
    ceiling: float = math.inf,
) -> list[Chart]:
    """Plots one recorded quantity over the steps, one plot per data set, with a common y axis.

    Of a method without a finished trial, those that are running or have failed are shown.
    """
    panels: dict[str, list[Values]] = {}
    for group in groups:
        curves = [_curve(trial, kind, name) for trial in group.finished or group.trials]
        steps, means, deviations = mean_curve(curves)
        if steps:
            panels.setdefault(group.dataset, []).append(
                Values(
                    name=group.label,
                    style=styles[group.label],
                    x=tuple(steps),
                    y=tuple(scale * mean for mean in means),
                    deviation=tuple(d and scale * d for d in deviations),
                    end_label=group.label if has_room_for(group.label) else "",
                )
            )
    if not panels:
        return []
    series = [values for each in panels.values() for values in each]
    log = scale == 1.0 and spans_decades(series)
    y_range = value_range(series, ceiling, log=log)
    titles = {group.dataset: column_text(group) for group in reversed(groups)}
    return [
        build_chart(
            panels[dataset],
            PANEL,
            title=titles[dataset],
            x_label="training step",
            x_start=0.0,
            y_label=f"{y_label} (log scale)" if log else y_label,
            y_range=y_range,
            log=log,
        )
        for dataset in dict.fromkeys(group.dataset for group in groups)
        if dataset in panels
    ]


def _records(trial: Trial, kind: str) -> Sequence[Mapping[str, float]]:
    return getattr(trial.curves, kind) if trial.curves else ()


def _curve(trial: Trial, kind: str, name: str) -> Curve:
    points = [each for each in _records(trial, kind) if name in each and "step" in each]
    return [(record["step"], record[name]) for record in thin(points, MOST_POINTS)]
