# SPDX-License-Identifier: Apache-2.0
import pytest

from ieg_core.report.model import summarize
from ieg_core.report.trials import Sweep, Trial
from tests.ieg_core.report.pages import row


def headline_of(rows):
    return summarize(Sweep("s1", "", "", tuple(map(Trial, rows)))).headline


def test_headline_says_how_much_of_a_dictionary_is_repetition() -> None:
    rows = [
        row("supervised", 0.0, 0.8, dictionary_repeats=None),
        row("fsr", 0.0, 0.9, 0, dictionary_repeats=0.1, dictionary_repeated_classes=2.0),
        row("fsr", 0.0, 0.9, 1, dictionary_repeats=0.2, dictionary_repeated_classes=3.0),
    ]
    assert headline_of(rows).notes[0] == (
        "15.0 % of the dictionary's slots (fsr) repeat an example: 2.5 classes have too few "
        "examples."
    )
    full = [row("fsr", 0.4, 0.9, dictionary_repeats=0.0, dictionary_repeated_classes=0.0)]
    assert headline_of(full).notes == ()


def test_headline_holds_the_best_method_against_plain_training_at_the_highest_noise() -> None:
    rows = [
        row("supervised", 0.2, 0.95),
        row("l2r", 0.2, 0.97),
        row("supervised", 0.8, 0.648),
        row("probe_only", 0.8, 0.945),
        row("l2r", 0.8, 0.931),
    ]
    found = headline_of(rows)
    assert found.sentence == "At 80 % noise l2r keeps 93.1 %, plain training 64.8 %."
    assert found.notes == ("The 100 clean labels alone (probe_only) give 94.5 %.",)
    assert found.missing == ""


def test_headline_names_the_better_one_first_and_says_when_it_may_be_chance() -> None:
    rows = [
        row("supervised", 0.2, 0.95, 0),
        row("supervised", 0.2, 0.97, 1),
        row("l2r", 0.2, 0.95, 0),
        row("l2r", 0.2, 0.96, 1),
    ]
    assert headline_of(rows).sentence == (
        "At 20 % noise plain training keeps 96.0 %, l2r 95.5 %, a difference that may be chance."
    )


@pytest.mark.parametrize(
    ("rows", "sentence", "missing"),
    [
        pytest.param([row("l2r", 0.8, 0.9)], "At 80 % noise l2r keeps 90.0 %.", "", id="alone"),
        pytest.param(
            [row("supervised", 0.8, 0.6), row("probe_only", 0.8, 0.9)],
            "At 80 % noise plain training keeps 60.0 %.",
            "",
            id="ablation-is-no-rival",
        ),
        pytest.param(
            [row("probe_only", 0.8, 0.9)],
            "At 80 % noise probe_only keeps 90.0 %.",
            "",
            id="ablation-alone",
        ),
        pytest.param(
            [row("supervised", 0.0, 0.9)],
            "Without added noise plain training reaches 90.0 %.",
            "",
            id="clean",
        ),
        pytest.param(
            [row("l2r", None, 0.9)], "On digits l2r reaches 90.0 %.", "", id="unknown-noise"
        ),
        pytest.param(
            [row("l2r", 0.8, None)], "No trial has finished.", "1 of 1 trials has no result.",
            id="none",
        ),
        pytest.param(
            [row("supervised", 0.4, 0.7), row("l2r", 0.4, 0.8), row("supervised", 0.8, 0.6),
             row("l2r", 0.8, None)],
            "At 40 % noise l2r keeps 80.0 %, plain training 70.0 %.",
            "1 of 4 trials has no result.",
            id="compares-where-both-finished",
        ),
        pytest.param([], "No trial has finished.", "", id="empty"),
    ],
)  # fmt: skip
def test_headline_of_incomplete_sweeps(rows: list[dict], sentence: str, missing: str) -> None:
    found = headline_of(rows)
    assert (found.sentence, found.missing) == (sentence, missing)


def test_headline_is_of_the_test_set_whatever_further_sets_say() -> None:
    rows = [
        row("l2r", 0.8, 0.9, eval_sets={"photos": {"accuracy_ema": 0.99}}),
        row("supervised", 0.8, 0.95),
    ]
    assert headline_of(rows).sentence.startswith("At 80 % noise plain training keeps 95.0 %")
