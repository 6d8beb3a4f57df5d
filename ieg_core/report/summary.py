# SPDX-License-Identifier: Apache-2.0
"""Means over seeds, and the results table."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ieg_core.report.trials import FINISHED, Row, Trial, family, parse_dataset

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


@dataclass(frozen=True)
class Statistic:
    """A mean over seeds and the sample deviation (None for a single seed)."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Group:
    """The trials that differ only in their seed.

    Attributes:
      label: The method; followed by what differs, or by network and steps, where it is ambiguous.
      trials: Its trials, finished or not.
      accuracy_ema_last: The headline figure, a fraction of 1; None if no trial finished.
      balanced_accuracy: Mean over the classes of the accuracy on each, after the last step (EMA),
        of a data set with a long tail; None for others.
      gpu_hours: Per trial, all the time that it held its GPUs; 0 on a CPU.
      eval_sets: The last step's EMA accuracy on each additional test set, by its name.
    """

    family: str
    dataset: str
    noise_rate: float | None
    true_flip_rate: float | None
    method: str
    label: str
    clean_labels_used: int | None
    trials: tuple[Trial, ...]
    accuracy_ema_last: Statistic | None
    accuracy_ema_best: Statistic | None
    balanced_accuracy: Statistic | None
    steps_per_second: Statistic | None
    total_seconds: Statistic | None
    gpu_hours: Statistic | None
    eval_sets: Mapping[str, Statistic]

    @property
    def rows(self) -> list[Row]:
        """The rows of its trials."""
        return [trial.row for trial in self.trials]

    @property
    def finished(self) -> list[Trial]:
        """Its finished trials."""
        return [trial for trial in self.trials if trial.row["status"] == FINISHED]


def statistic(values: Iterable[float | None]) -> Statistic | None:
    """Computes the mean and the sample deviation, sqrt(Σ (x - mean)² / (n - 1)).

    Args:
      values: Numbers; None and NaN are ignored.

    Returns:
      The statistic, or None if no number is left.
    """
    numbers = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not numbers:
        return None
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Statistic(statistics.fmean(numbers), deviation, len(numbers))


def group_trials(trials: Iterable[Trial]) -> list[Group]:
    """Groups trials by everything but the seed, in their order.

    Args:
      trials: The trials; of each, only its row is used.

    Returns:
      One group for each data set, method, network, number of steps and, in a report on several
      sweeps, whatever else differs ("variant", see `join.mark_variants`).
    """
    members: dict[tuple[str, str, str, object], list[Trial]] = {}
    for trial in trials:
        row = trial.row
        # A trial whose folder is gone is known only by its name.
        method = row["method"] or "unknown method"
        method = f"{method} [{row['variant']}]" if row.get("variant") else method
        key = (str(row["dataset"] or row["trial"]), method, str(row["network"]), row["steps"])
        members.setdefault(key, []).append(trial)
    variants = Counter((dataset, name) for dataset, name, _, _ in members)
    ambiguous = {name for (_, name), count in variants.items() if count > 1}
    groups = []
    for (dataset, name, network, steps), together in members.items():
        first = together[0].row
        done = [trial.row for trial in together if trial.row["status"] == FINISHED]
        tail = [row for row in done if has_long_tail(row)]
        groups.append(
            Group(
                family=family(first),
                dataset=dataset,
                noise_rate=first["noise_rate"],
                true_flip_rate=first["true_flip_rate"],
                method=str(first["method"]),
                label=f"{name} ({network}, {steps} steps)" if name in ambiguous else name,
                clean_labels_used=first["clean_labels_used"],
                trials=tuple(together),
                accuracy_ema_last=statistic(row["accuracy_ema_last"] for row in done),
                accuracy_ema_best=statistic(row["accuracy_ema_best"] for row in done),
                balanced_accuracy=statistic(row["balanced_accuracy_ema_last"] for row in tail),
                steps_per_second=statistic(row["steps_per_second"] for row in done),
                total_seconds=statistic(row["total_seconds"] for row in done),
                gpu_hours=statistic(row.get("gpu_hours") for row in done),
                eval_sets=_eval_sets(done),
            )
        )
    return groups


def results_table(groups: Sequence[Group]) -> list[list[str]]:
    """Lays out the results for a terminal.

    Args:
      groups: All groups of a sweep.

    Returns:
      A header and one line per group, all of equal length; accuracies in percent, mean ± sample
      deviation over seeds.
    """
    names = _distinct_names(groups)
    tails = any(group.balanced_accuracy for group in groups)
    header = ["noise", "method", "clean labels used", "seeds"]
    sets = eval_set_names(groups)
    header += ["accuracy, last (EMA) %", *(["balanced, last (EMA) %"] if tails else [])]
    header += [*(f"on {name}, last (EMA) %" for name in sets), "best on test %"]
    header += ["steps", "steps/s", "seconds a trial", "GPU-hours a trial"]
    table = [["data set", *header] if names else header]
    for group in groups:
        line = [
            _noise_text(group),
            group.label,
            "?" if group.clean_labels_used is None else str(group.clean_labels_used),
            seeds_text(group),
            accuracy_text(group.accuracy_ema_last),
            *([accuracy_text(group.balanced_accuracy)] if tails else []),
            *(accuracy_text(group.eval_sets.get(name)) for name in sets),
            accuracy_text(group.accuracy_ema_best),
            steps_text(group.rows),
            number_text(group.steps_per_second),
            number_text(group.total_seconds),
            gpu_hours_text(group.gpu_hours),
        ]
        table.append([names[group.dataset], *line] if names else line)
    return table


def _distinct_names(groups: Sequence[Group]) -> dict[str, str]:
    """Returns what the table calls each data set; {} where noise alone tells them apart."""
    families = {group.dataset: group.family for group in groups}
    shown = {(group.family, _noise_text(group)) for group in groups}
    if len(shown) < len(families):
        return {dataset: dataset for dataset in families}
    return families if len(set(families.values())) > 1 else {}


def eval_set_names(groups: Iterable[Group]) -> list[str]:
    """Lists the additional test sets that any of the groups was evaluated on."""
    return sorted({name for group in groups for name in group.eval_sets})


def has_long_tail(row: Row) -> bool:
    """Returns whether a row's data set has classes of different sizes by design."""
    parsed = parse_dataset(row)
    return parsed is not None and parsed.imbalance is not None


def percent(fraction: float) -> str:
    """Formats a fraction of 1, for example "93.1 %"."""
    return f"{100 * fraction:.1f} %"


def rate_text(rate: float | None) -> str:
    """Formats a noise rate, for example "80 %", "12.5 %", or "unknown"."""
    return "unknown" if rate is None else f"{round(100 * rate, 4):g} %"


def wrong_text(group: Group) -> str:
    """Formats the share of wrong labels, for example "40.2 % wrong"; "" if unknown."""
    return "" if group.true_flip_rate is None else f"{100 * group.true_flip_rate:.3g} % wrong"


def column_text(group: Group) -> str:
    """Names a group's data set within its family: "80 % noise", or its name if it has no rate."""
    return group.dataset if group.noise_rate is None else f"{rate_text(group.noise_rate)} noise"


def _noise_text(group: Group) -> str:
    """Formats the rate of added noise, or the share of wrong labels of human annotators."""
    if group.noise_rate is None and group.true_flip_rate is not None:
        return wrong_text(group)
    return rate_text(group.noise_rate)


def accuracy_text(accuracy: Statistic | None) -> str:
    """Formats an accuracy in percent, for example "93.1 ± 0.4"; "-" if there is none."""
    if accuracy is None:
        return "-"
    text = f"{100 * accuracy.mean:.1f}"
    if accuracy.deviation is None:
        return text
    return f"{text} {PLUS_MINUS} {100 * accuracy.deviation:.1f}"


def number_text(value: Statistic | None) -> str:
    """Formats a mean with three significant digits or as a whole number; "-" if there is none."""
    if value is None:
        return "-"
    return f"{value.mean:.0f}" if value.mean >= 100 else f"{value.mean:.3g}"


def gpu_hours_text(hours: Statistic | None) -> str:
    """Formats mean GPU-hours; "-" if no GPU was in use, or if their number is unknown."""
    return number_text(hours) if hours and hours.mean else "-"


def steps_text(rows: Iterable[Row]) -> str:
    """Formats the steps of trials, "600", or "600 to 1,200" where they differ."""
    steps = sorted({row["steps"] for row in rows if row["steps"] is not None})
    return " to ".join(f"{count:,}" for count in dict.fromkeys([*steps[:1], *steps[-1:]])) or "-"


def seeds_text(group: Group) -> str:
    """Formats the number of seeds, "2 of 3" where some are missing."""
    done, total = len(group.finished), len(group.trials)
    return str(total) if done == total else f"{done} of {total}"


def _eval_sets(done: Sequence[Row]) -> dict[str, Statistic]:
    measured: dict[str, list[float | None]] = {}
    for row in done:
        sets = row.get("eval_sets")
        for name, figures in (sets if isinstance(sets, dict) else {}).items():
            if isinstance(figures, dict):
                measured.setdefault(str(name), []).append(figures.get("accuracy_ema"))
    means = {name: statistic(values) for name, values in measured.items()}
    return {name: mean for name, mean in means.items() if mean}
