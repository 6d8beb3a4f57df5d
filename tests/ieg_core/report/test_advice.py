# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ieg_core.report.advice import Advice
from ieg_core.report.model import Report, summarize
from ieg_core.report.trials import Row, Sweep, Trial, sort_key
from tests.ieg_core.report.pages import row

CLEAN = {"supervised": 0, "mixup": 0, "l2r": 100, "ieg": 100}


def report_of(rows: Sequence[Row], images: int = 0) -> Report:
    """Summarizes trials; every finished one has so many test images."""
    matrix = np.diag([images]) if images else None
    trials = [Trial(each, confusion=matrix) for each in sorted(rows, key=sort_key)]
    return summarize(Sweep("s", "", "", tuple(trials)))


def advise(rows: Sequence[Row], images: int = 0) -> list[Advice]:
    return list(report_of(rows, images).advice)


def rows_of(
    table: Mapping[str, Mapping[float | None, Sequence[float | None]]], **more: object
) -> list[Row]:
    return [
        row(method, rate, accuracy, seed, clean_labels_used=CLEAN[method], **more)
        for method, columns in table.items()
        for rate, accuracies in columns.items()
        for seed, accuracy in enumerate(accuracies)
    ]


def sentence(table: Mapping, **more: object) -> str:
    (advice,) = advise(rows_of(table, **more))
    return advice.sentence


HIGH, LOW = (0.95, 0.951, 0.949), (0.65, 0.66, 0.64)


def test_the_best_at_every_noise_rate_is_the_one_to_use() -> None:
    table = {
        "ieg": {0.4: (0.97, 0.971, 0.969), 0.8: HIGH},
        "mixup": {0.4: (0.95, 0.951, 0.949), 0.8: (0.7, 0.701, 0.699)},
        "supervised": {0.4: (0.9, 0.901, 0.899), 0.8: LOW},
    }
    assert sentence(table) == (
        "Use ieg: at both noise rates it is better than mixup, by 2.0 to 25.0 points (3 seeds)."
    )


def test_a_collapse_of_the_pseudo_labels_is_a_caveat() -> None:
    rows = rows_of({"ieg": {0.8: (0.1, 0.3)}, "supervised": {0.8: (0.5, 0.5)}})
    for trial, share in zip(rows, (0.99, 0.2, None, None), strict=True):
        trial["most_frequent_pseudo_label"] = share
    (advice,) = advise(rows)
    (caveat,) = [each for each in advice.caveats if "pseudo-labels" in each]
    assert caveat.startswith("With ieg at 80 % noise, nearly all pseudo-labels ended as one class")
    rows[0]["most_frequent_pseudo_label"] = 0.3
    assert not any("pseudo-labels" in each for each in advise(rows)[0].caveats)


def test_one_noise_rate_names_the_accuracy_and_the_next_best() -> None:
    table = {"ieg": {0.8: HIGH}, "mixup": {0.8: (0.7, 0.701, 0.699)}, "supervised": {0.8: LOW}}
    assert sentence(table) == (
        "Use ieg: at 80 % noise it keeps 95.0 %, 25.0 points more than mixup, the next best "
        "(3 seeds)."
    )
    del table["mixup"]
    assert sentence(table).endswith("30.0 points more than plain training (3 seeds).")


def test_where_no_other_is_better_the_sentence_says_so() -> None:
    table = {
        "ieg": {0.2: (0.96, 0.97, 0.98), 0.8: HIGH},
        "supervised": {0.2: (0.98, 0.96, 0.97), 0.8: LOW},
    }
    assert sentence(table) == (
        "Use ieg: at 80 % noise it is better than plain training, by 30.0 points, and at 20 % "
        "noise no other is clearly better (3 seeds)."
    )


def test_without_a_difference_no_method_is_named_the_best() -> None:
    table = {"ieg": {0.8: (0.94, 0.95, 0.96)}, "supervised": {0.8: (0.96, 0.95, 0.93)}}
    assert sentence(table) == (
        "No method is clearly better: 3 seeds do not separate ieg and plain training (95.0 and "
        "94.7 % at 80 % noise); plain training needs no clean labels."
    )


def test_a_tie_at_the_top_names_both_and_the_faster() -> None:
    rows = rows_of({"ieg": {0.8: (0.94, 0.95, 0.96)}}, total_seconds=90.0)
    rows += rows_of({"l2r": {0.8: (0.96, 0.95, 0.93)}}, total_seconds=30.0)
    rows += rows_of({"supervised": {0.8: LOW}})
    (advice,) = advise(rows)
    assert advice.sentence == (
        "Use ieg or l2r: 3 seeds do not separate them (95.0 and 94.7 % at 80 % noise); l2r is the "
        "fastest."
    )


def test_a_choice_that_depends_on_the_noise_says_where() -> None:
    table = {
        "ieg": {0.2: LOW, 0.4: LOW, 0.8: HIGH},
        "mixup": {0.2: HIGH, 0.4: HIGH, 0.8: LOW},
    }
    assert sentence(table) == (
        "It depends on the noise: use mixup at 20 % and 40 % noise, and ieg at 80 % noise "
        "(3 seeds)."
    )


def test_one_seed_tells_only_so_far() -> None:
    rows = rows_of({"ieg": {0.8: HIGH[:1]}, "supervised": {0.8: LOW[:1]}})
    (advice,) = advise(rows, images=359)
    assert advice.sentence == (
        "Use ieg, as far as one seed can tell: at 80 % noise it keeps 95.0 %, 30.0 points more "
        "than plain training."
    )
    assert advice.caveats[0] == (
        "One seed does not show how much results vary from seed to seed: SEEDS=0,1,2,3,4 shows it."
    )
    close = rows_of({"ieg": {0.8: [0.95]}, "supervised": {0.8: [0.94]}})
    (advice,) = advise(close, images=359)
    assert advice.sentence.startswith("No method is clearly better: one seed does not separate")


def test_labels_of_people_name_the_data_set() -> None:
    table = {"ieg": {None: HIGH}, "supervised": {None: LOW}}
    found = sentence(table, dataset="cifar10_human_worst", true_flip_rate=0.4)
    assert found.startswith("Use ieg: on cifar10_human_worst it reaches 95.0 %, 30.0 points more")


def caveats(rows: list[Row], images: int = 0) -> str:
    (advice,) = advise(rows, images)
    return " ".join(advice.caveats)


def test_each_caveat_comes_only_where_it_applies() -> None:
    full = {"mixup": {0.8: HIGH}, "supervised": {0.8: LOW}}
    assert caveats(rows_of(full)) == ""
    gaps = {"mixup": {0.8: (*HIGH, None)}, "supervised": {0.8: LOW}, "ieg": {0.8: [None]}}
    assert caveats(rows_of(gaps)) == (
        "The table is incomplete: mixup has 3 of 4 seeds at 80 % noise and ieg has no result at "
        "80 % noise."
    )
    alone = {"mixup": {0.8: HIGH}, "l2r": {0.8: LOW}}
    assert "Without plain training (supervised)" in caveats(rows_of(alone))
    needy = {"ieg": {0.8: HIGH}, "mixup": {0.8: (0.7, 0.71, 0.69)}, "supervised": {0.8: LOW}}
    assert caveats(rows_of(needy)) == (
        "Images with clean labels are needed for ieg, here 100; of the methods without, mixup has "
        "the highest accuracy at 80 % noise, 70.0 %."
    )
    own = rows_of(full, dataset="folder_uniform_0.8")
    assert caveats(own).startswith("The test labels are your own")
    short = rows_of(full, recipe_steps=200_000)
    assert caveats(short).startswith("The trials have 600 steps, their recipe has 200,000:")
    small = {"mixup": {0.8: (0.66, 0.661, 0.659)}, "supervised": {0.8: (0.63, 0.631, 0.629)}}
    # 1.96 * sqrt((0.66 * 0.34 + 0.63 * 0.37) / 400) = 0.066
    assert caveats(rows_of(small), images=400) == (
        "The test set has 400 images: on others, differences below 6.6 points can turn out "
        "differently."
    )
    assert caveats(rows_of(small), images=40_000) == ""


def test_nothing_finished_gives_no_advice_and_one_method_no_choice() -> None:
    assert advise(rows_of({"ieg": {0.8: [None]}})) == []
    assert sentence({"ieg": {0.8: HIGH}, "mixup": {0.8: [None]}}) == (
        "Nothing to choose from: only ieg has a result."
    )


def test_each_family_has_its_advice() -> None:
    rows = rows_of({"ieg": {0.8: HIGH}, "supervised": {0.8: LOW}})
    rows += rows_of({"ieg": {0.8: LOW}, "supervised": {0.8: HIGH}}, dataset="cifar10_uniform_0.8")
    found = {advice.family: advice.sentence for advice in advise(rows)}
    assert found["digits, uniform label noise"].startswith("Use ieg:")
    assert found["cifar10, uniform label noise"].startswith("Use plain training:")


accuracies = st.lists(st.none() | st.floats(0, 1, width=16), min_size=1, max_size=4)
tables = st.dictionaries(
    st.sampled_from(list(CLEAN)),
    st.dictionaries(st.sampled_from([0.0, 0.2, 0.8]), accuracies, min_size=1),
    min_size=1,
)


@settings(max_examples=30, deadline=None)
@given(tables, st.sampled_from([0, 50, 10_000]), st.randoms())
def test_a_method_named_alone_leads_every_column_and_no_other_does(table, images, random) -> None:
    rows = rows_of(table)
    report = report_of(rows, images)
    random.shuffle(rows)
    assert report_of(rows, images).advice == report.advice
    assert bool(report.advice) == any(each["accuracy_ema_last"] is not None for each in rows)
    for advice in report.advice:
        for text in (advice.sentence, *advice.caveats):
            assert text.endswith(".")
            assert text[0].isupper()
            assert "None" not in text
            assert "  " not in text
        columns = [
            {each.group.label for each in contest.leaders}
            for contest in report.contests.values()
            if len(contest.ranked) > 1
        ]
        always = set.intersection(*columns) if columns else set()
        name = advice.sentence.removeprefix("Use ").partition(":")[0].partition(",")[0]
        single = advice.sentence.startswith("Use ") and " or " not in name
        assert single == (len(always) == 1)
        if single:
            assert always == {"supervised" if name == "plain training" else name}


@settings(max_examples=15, deadline=None)
@given(tables, st.sampled_from([0.0, 0.2, 0.8]))
def test_equal_methods_have_no_best(table, rate) -> None:
    """Every method has the same accuracy in every seed: no sentence may prefer one."""
    same = {method: {rate: [0.5] * 3} for method in table}
    if len(same) > 1:
        assert sentence(same).startswith("No method is clearly better: 3 seeds do not separate ")


@pytest.mark.parametrize("seeds", [1, 3])
def test_more_rivals_never_make_a_lead_clearer(seeds) -> None:
    pair = {"ieg": {0.8: HIGH[:seeds]}, "supervised": {0.8: (0.94, 0.938, 0.943)[:seeds]}}
    more = pair | {"mixup": {0.8: LOW[:seeds]}, "l2r": {0.8: LOW[:seeds]}}

    def names(table: Mapping) -> bool:
        (advice,) = advise(rows_of(table), images=2000)
        return advice.sentence.startswith("Use ieg:") or "Use ieg, as" in advice.sentence

    assert names(pair) >= names(more)
