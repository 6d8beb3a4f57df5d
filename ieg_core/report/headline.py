# SPDX-License-Identifier: Apache-2.0
"""The main finding of a sweep in one sentence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ieg_core.experiment import methods as settings
from ieg_core.report.comparison import Contest
from ieg_core.report.summary import PLUS_MINUS, Group, percent, rate_text, statistic

BASELINE = "supervised"


@dataclass(frozen=True)
class Headline:
    """The main finding: one sentence, notes that qualify it, and what is missing."""

    sentence: str
    notes: tuple[str, ...] = ()
    missing: str = ""


def headline(groups: Sequence[Group], contests: Mapping[str, Contest]) -> Headline:
    """Compares the best method with plain training at the highest noise rate that has both.

    Args:
      groups: All groups of a sweep.
      contests: The contest of each of its data sets.

    Returns:
      The sentence, notes on ablations, repetitions and seeds, and how many trials have no result.
    """
    total = sum(len(group.trials) for group in groups)
    missing = total - sum(len(group.finished) for group in groups)
    verb = "has" if missing == 1 else "have"
    lost = f"{missing} of {total} trials {verb} no result." if missing else ""
    done = [group for group in groups if group.accuracy_ema_last is not None]
    if not done:
        return Headline("No trial has finished.", missing=lost)
    dataset = _noisiest_dataset(done)
    here = [group for group in done if group.dataset == dataset]
    trained = [group for group in here if _trains_on_noisy(group.method)] or here
    named = [group for group in trained if group.method == BASELINE][:1]
    others = [group for group in trained if group.method != BASELINE]
    if others:
        named.append(max(others, key=_mean))
    named.sort(key=_mean, reverse=True)
    first = named[0]
    verb = "keeps" if first.noise_rate else "reaches"
    sentence = f"{setting_text(first)} {method_name(first)} {verb} {percent(_mean(first))}"
    if len(named) > 1:
        sentence += f", {method_name(named[1])} {percent(_mean(named[1]))}"
        if not contests[dataset].separates(named[0], named[1]):
            sentence += ", a difference that may be chance"
    notes = [_ablation_note(group) for group in here if not _trains_on_noisy(group.method)]
    notes += [note for note in map(_dictionary_note, here) if note]
    return Headline(f"{sentence}.", (*notes, *_seeds_notes(here)), lost)


def _noisiest_dataset(done: Sequence[Group]) -> str:
    """Returns the noisiest data set that has a baseline and a rival, or else any noisiest one."""
    methods: dict[str, set[str]] = {}
    for group in done:
        methods.setdefault(group.dataset, set()).add(group.method)
    comparable = [
        group
        for group in done
        if BASELINE in methods[group.dataset]
        and any(
            method != BASELINE and _trains_on_noisy(method) for method in methods[group.dataset]
        )
    ]
    candidates = comparable or done
    first_family = candidates[0].family
    candidates = [group for group in candidates if group.family == first_family]
    return max(candidates, key=lambda group: group.noise_rate or 0.0).dataset


def _trains_on_noisy(method: str) -> bool:
    return method not in settings.METHODS or settings.METHODS[method].trains_on_noisy


def _mean(group: Group) -> float:
    return group.accuracy_ema_last.mean if group.accuracy_ema_last else -math.inf


def method_name(group: Group) -> str:
    """Names a method in a sentence."""
    return "plain training" if group.label == BASELINE else group.label


def setting_text(group: Group) -> str:
    """Names a noise rate at the start of a sentence, for example "At 80 % noise"."""
    if group.noise_rate is None:
        return f"On {group.dataset}"
    return f"At {rate_text(group.noise_rate)} noise" if group.noise_rate else "Without added noise"


def _ablation_note(group: Group) -> str:
    clean = group.clean_labels_used
    labels = f"The {clean:,} clean labels alone" if clean else "The clean labels alone"
    return f"{labels} ({group.label}) give {percent(_mean(group))}."


def _dictionary_note(group: Group) -> str:
    """Describes how much of a dictionary was filled by repetition; "" if nothing was."""
    done = group.finished
    repeats = statistic(trial.row["dictionary_repeats"] for trial in done)
    classes = statistic(trial.row["dictionary_repeated_classes"] for trial in done)
    if repeats is None or classes is None or not repeats.mean:
        return ""
    return (
        f"{percent(repeats.mean)} of the dictionary's slots ({group.label}) repeat an example: "
        f"{classes.mean:.3g} classes have too few examples."
    )


def _seeds_notes(groups: Sequence[Group]) -> list[str]:
    counts = sorted({len(group.finished) for group in groups})
    if counts == [1]:
        return []  # the recommendation says what one seed means
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return [f"Means over {seeds} seeds; {PLUS_MINUS} is the sample deviation."]
