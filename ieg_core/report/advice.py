# SPDX-License-Identifier: Apache-2.0
"""Which method a table of results recommends, and what limits the recommendation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ieg_core.report.comparison import FEWEST_SEEDS, Contest, Entrant, sampling_error
from ieg_core.report.headline import BASELINE, method_name
from ieg_core.report.summary import Group, percent, rate_text, seeds_text
from ieg_core.report.trials import parse_dataset

MOST_NAMED = 3
CONFIDENT = 1.96
"""Deviations around the mean of a normal distribution that hold 95 % of it."""
FASTER = 0.8
"""The share of the next one's time below which a method counts as the fastest."""
COLLAPSED = 0.9
"""The share of a trial's last pseudo-labels that are of one class above which it has collapsed."""
MORE_SEEDS = "SEEDS=0,1,2,3,4"


@dataclass(frozen=True)
class Advice:
    """The method to use on one data set.

    Attributes:
      family: The data set, without its noise rate.
      sentence: Which method to use and why.
      caveats: What limits this, one sentence each.
    """

    family: str
    sentence: str
    caveats: tuple[str, ...] = ()


def advise(family: str, groups: Sequence[Group], contests: Mapping[str, Contest]) -> Advice | None:
    """Reads the recommendation off the results of one data set under its noise rates.

    A method is recommended alone only if it leads at every noise rate and no other one does
    (`ieg_core.report.comparison` says what leading means).

    Args:
      family: The data set.
      groups: All its groups, finished or not, the noise rate increasing.
      contests: The contest of each of its data sets.

    Returns:
      The advice, a function of the arguments alone; None if no trial has finished.
    """
    columns = [contests[dataset] for dataset in dict.fromkeys(group.dataset for group in groups)]
    columns = [column for column in columns if column.ranked]
    if not columns:
        return None
    compared = [column for column in columns if len(column.ranked) > 1]
    if not compared:
        names = _listed([column.ranked[0] for column in columns], "and")
        sentence = f"Nothing to choose from: only {names} has a result."
        return Advice(family, sentence, tuple(_incomplete(groups)))
    always = [
        each
        for each in compared[-1].leaders
        if all(_has(column.leaders, each) for column in compared)
    ]
    if len(always) == 1:
        advised, sentence = always, _one(always[0], compared, len(columns) == len(compared))
    elif always:
        advised, sentence = always, _several(always, compared)
    else:
        advised = [each for column in compared for each in column.leaders]
        sentence = _by_noise(compared)
    return Advice(family, sentence, tuple(_caveats(groups, compared, advised)))


def _one(best: Entrant, compared: Sequence[Contest], is_all: bool) -> str:
    name = method_name(best.group)
    alone = [column for column in compared if len(column.leaders) == 1]
    rest = [column for column in compared if len(column.leaders) > 1]
    everywhere = _where(compared)
    if is_all and len(compared) > 1:
        everywhere = "at both noise rates" if len(compared) == 2 else "at every noise rate"
    rivals = {column.ranked[1].group.label: column.ranked[1] for column in alone}
    rival = "the next best method"
    if len(rivals) == 1:
        rival = method_name(*[each.group for each in rivals.values()])
    if len(compared) == len(alone) == 1:
        verb = "keeps" if best.group.noise_rate else "reaches"
        next_best = ", the next best" if len(compared[0].ranked) > 2 else ""
        reason = (
            f"{everywhere} it {verb} {percent(best.mean)}, {_margin(alone)} more than {rival}"
            f"{next_best}"
        )
    elif not rest:
        reason = f"{everywhere} it is better than {rival}, by {_margin(alone)}"
    elif alone:
        reason = (
            f"{_where(alone)} it is better than {rival}, by {_margin(alone)}, and "
            f"{_where(rest)} no other is clearly better"
        )
    else:
        reason = f"no other is among the best {everywhere}"
    return f"Use {name}{_as_far(compared)}: {reason}{_evidence(compared)}."


def _several(always: Sequence[Entrant], compared: Sequence[Contest]) -> str:
    noisiest = compared[-1]
    labels = {each.group.label for column in compared for each in column.ranked}
    means = [f"{100 * each.mean:.1f}" for each in always[:MOST_NAMED]]
    figures = f"{_joined(means, 'and')} % {_where([noisiest])}"
    seeds = _seeds(compared)
    do = "does" if seeds == "one seed" else "do"
    if len(always) == len(labels):
        start = f"No method is clearly better: {seeds} {do} not separate {_listed(always, 'and')}"
    else:
        start = f"Use {_listed(always, 'or')}: {seeds} {do} not separate them"
    return f"{start} ({figures}){_easiest(always)}."


def _by_noise(compared: Sequence[Contest]) -> str:
    places: dict[frozenset[str], list[Contest]] = {}
    for column in compared:
        places.setdefault(frozenset(each.group.label for each in column.leaders), []).append(column)
    parts = [f"{_listed(columns[-1].leaders, 'or')} {_where(columns)}" for columns in
             places.values()]  # fmt: skip
    return (
        f"It depends on the noise{_as_far(compared)}: use {_joined(parts, ', and')}"
        f"{_evidence(compared)}."
    )


def _easiest(always: Sequence[Entrant]) -> str:
    """Names those of equally good methods that need no clean labels, or else the fastest."""
    free = [each for each in always if each.group.clean_labels_used == 0]
    if 0 < len(free) < len(always):
        return f"; {_listed(free, 'and')} {'needs' if len(free) == 1 else 'need'} no clean labels"
    times = {each.group.total_seconds.mean: each for each in always if each.group.total_seconds}
    if len(times) < len(always):
        return ""
    first, second, *_ = sorted(times)
    return f"; {method_name(times[first].group)} is the fastest" if first < FASTER * second else ""


def _caveats(
    groups: Sequence[Group], compared: Sequence[Contest], advised: Sequence[Entrant]
) -> Iterable[str]:
    fewest = min(_counts(compared))
    if fewest < FEWEST_SEEDS:
        spread = "does not show" if fewest == 1 else "hardly show"
        seeds = _seeds(compared).capitalize()
        yield f"{seeds} {spread} how much results vary from seed to seed: {MORE_SEEDS} shows it."
    yield from _incomplete(groups)
    yield from _collapsed(groups)
    entrants = [each for column in compared for each in column.ranked]
    if not any(each.group.method == BASELINE for each in entrants):
        yield f"Without plain training ({BASELINE}) in the table, what its use gains is unknown."
    yield from _clean_labels(compared[-1], advised)
    parsed = parse_dataset(groups[0].rows[0])
    if parsed and parsed.base == "folder":
        yield (
            "The test labels are your own: wrong ones among them lower every accuracy and can "
            "change the order."
        )
    yield from _length(each.group for each in entrants)
    yield from _test_set(compared)


def _incomplete(groups: Sequence[Group]) -> Iterable[str]:
    gaps = [
        f"{method_name(group)} has {seeds_text(group)} seeds {_at(group)}"
        if group.finished
        else f"{method_name(group)} has no result {_at(group)}"
        for group in groups
        if len(group.finished) < len(group.trials)
    ]
    if gaps:
        more = [f"{len(gaps) - MOST_NAMED} more gaps"] if len(gaps) > MOST_NAMED else []
        yield f"The table is incomplete: {_joined([*gaps[:MOST_NAMED], *more], 'and')}."


def _collapsed(groups: Sequence[Group]) -> Iterable[str]:
    """Names the groups of which a trial ended with the same pseudo-label for nearly all images."""
    found = [
        f"{method_name(group)} {_at(group)}"
        for group in groups
        if any(
            (trial.row["most_frequent_pseudo_label"] or 0) > COLLAPSED for trial in group.finished
        )
    ]
    if found:
        more = [f"in {len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
        yield (
            f"With {_joined([*found[:MOST_NAMED], *more], 'and')}, nearly all pseudo-labels ended "
            "as one class, so nothing was learned from them: docs/early-collapse.md says which "
            "settings prevent it."
        )


def _clean_labels(noisiest: Contest, advised: Sequence[Entrant]) -> Iterable[str]:
    needy = list({each.group.label: each for each in advised if each.group.clean_labels_used}
                 .values())  # fmt: skip
    if not needy:
        return
    counts = sorted({each.group.clean_labels_used or 0 for each in needy})
    used = " to ".join(f"{count:,}" for count in dict.fromkeys([counts[0], counts[-1]]))
    text = f"Images with clean labels are needed for {_listed(needy, 'and')}, here {used}"
    free = [each for each in noisiest.ranked if each.group.clean_labels_used == 0]
    if free and len(needy) == len({each.group.label for each in advised}):
        text += (
            f"; of the methods without, {method_name(free[0].group)} has the highest accuracy "
            f"{_where([noisiest])}, {percent(free[0].mean)}"
        )
    yield f"{text}."


def _length(groups: Iterable[Group]) -> Iterable[str]:
    lengths = {
        (row["steps"], row["recipe_steps"]): None
        for group in groups
        for row in group.rows
        if row["recipe_steps"] and row["steps"] and row["steps"] != row["recipe_steps"]
    }
    if lengths:
        steps, whole = next(iter(lengths))
        yield (
            f"The trials have {steps:,} steps, their recipe has {whole:,}: at its length the order "
            "may be another."
        )


def _test_set(compared: Sequence[Contest]) -> Iterable[str]:
    """Says when a lead is within what drawing other test images could explain."""
    bounds = [
        (CONFIDENT * sampling_error(first, second), first)
        for first, second in (column.ranked[:2] for column in compared if len(column.leaders) == 1)
        if first.mean - second.mean < CONFIDENT * sampling_error(first, second)
    ]
    if bounds:
        bound, first = max(bounds, key=lambda each: each[0])
        yield (
            f"The test set has {first.num_test:,} images: on others, differences below "
            f"{100 * bound:.1f} points can turn out differently."
        )


def _where(columns: Sequence[Contest]) -> str:
    """Names columns in a sentence, for example "at 20 % and 40 % noise"."""
    groups = [column.ranked[0].group for column in columns]
    rates = [group.noise_rate for group in groups if group.noise_rate is not None]
    if len(rates) < len(groups):
        return f"on {_joined([group.dataset for group in groups], 'and')}"
    if rates == [0.0]:
        return "without added noise"
    return f"at {_joined([rate_text(rate) for rate in rates], 'and')} noise"


def _at(group: Group) -> str:
    rate = group.noise_rate
    return f"on {group.dataset}" if rate is None else f"at {rate_text(rate)} noise"


def _margin(alone: Sequence[Contest]) -> str:
    """Formats the leads over the next best, for example "2.1 to 8.0 points"."""
    leads = sorted(column.ranked[0].mean - column.ranked[1].mean for column in alone)
    texts = [f"{100 * lead:.1f}" for lead in (leads[0], leads[-1])]
    return f"{' to '.join(dict.fromkeys(texts))} points"


def _counts(compared: Sequence[Contest]) -> set[int]:
    """Returns the numbers of seeds of those that matter: the leaders and the next best."""
    return {
        len(each.values) for column in compared for each in (*column.leaders, *column.ranked[:2])
    }


def _seeds(compared: Sequence[Contest]) -> str:
    counts = _counts(compared)
    fewest = min(counts)
    if fewest < FEWEST_SEEDS:
        return ("one seed", "two seeds")[fewest - 1]
    return f"{fewest} seeds" if len(counts) == 1 else f"{fewest} to {max(counts)} seeds"


def _as_far(compared: Sequence[Contest]) -> str:
    few = min(_counts(compared)) < FEWEST_SEEDS
    return f", as far as {_seeds(compared)} can tell" if few else ""


def _evidence(compared: Sequence[Contest]) -> str:
    return f" ({_seeds(compared)})" if min(_counts(compared)) >= FEWEST_SEEDS else ""


def _has(entrants: Sequence[Entrant], entrant: Entrant) -> bool:
    return any(each.group.label == entrant.group.label for each in entrants)


def _listed(entrants: Sequence[Entrant], word: str) -> str:
    names = list(dict.fromkeys(method_name(each.group) for each in entrants))
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return _joined([*names[:MOST_NAMED], *more], word)


def _joined(texts: Sequence[str], word: str) -> str:
    """Joins texts as a sentence does: "a", "a and b", "a, b and c"."""
    if len(texts) == 1:
        return texts[0]
    return f"{', '.join(texts[:-1])}{'' if word.startswith(',') else ' '}{word} {texts[-1]}"
