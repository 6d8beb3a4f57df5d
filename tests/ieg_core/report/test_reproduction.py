# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from ieg_core.errors import UserError
from ieg_core.recipes import build
from ieg_core.recipes.family import OURS, RECALLED, Published
from ieg_core.recipes.published import PUBLISHED
from ieg_core.report.reproduction import (
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    accepted_rows,
    as_record,
    failures,
    judge,
    markdown,
)
from ieg_core.report.trials import ROW_KEYS
from ieg_core.store.records import ReportRecord
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from tests.ieg_core.report.pages import group_rows

FIGURE = Published("cifar10_uniform_0.2", "ieg", "wrn28-10", 100, 96.2, 0.1, "a paper")


def row(accuracy, seed=0, **changes):
    """A finished trial of the paper's protocol; 18 % of ten classes' labels are wrong at 0.2."""
    plain = {
        "dataset": "cifar10_uniform_0.2", "method": "ieg", "network": "wrn28-10", "seed": seed,
        "noise_rate": 0.2, "true_flip_rate": 0.18, "clean_labels_used": 100, "recipe": "cifar",
        "steps": 500, "recipe_steps": 500, "changed_settings": [], "accuracy_ema_last": accuracy,
        "status": "finished", "reason": "", "trial": f"c{seed}",
    }  # fmt: skip
    return dict.fromkeys(ROW_KEYS) | plain | changes


def only(rows, published=(FIGURE,), tolerance=0.5, accepted=()):
    (verdict,) = judge(group_rows(rows), published, tolerance, group_rows(accepted))
    return verdict


@pytest.mark.parametrize(
    ("accuracies", "outcome"),
    [
        ((0.950, 0.960, 0.960), NOT_REPRODUCED),  # mean 95.67 < 96.2 - 0.5
        ((0.956, 0.957, 0.958), REPRODUCED),  # mean 95.7 = 96.2 - 0.5: the limit itself
        ((0.999,), REPRODUCED),
    ],
)
def test_a_published_figure_is_reproduced_from_its_tolerance_below_on(accuracies, outcome):
    verdict = only([row(value, seed) for seed, value in enumerate(accuracies)])
    assert verdict.outcome == outcome
    assert verdict.figure == 96.2
    assert verdict.source == "a paper"


def test_the_mean_and_deviation_are_over_seeds_in_per_cent():
    verdict = only([row(0.95, 0), row(0.97, 1)])
    assert verdict.accuracy == pytest.approx(96.0)
    # Sample deviation of 95 and 97: sqrt((1 + 1) / (2 - 1)).
    assert verdict.deviation == pytest.approx(2**0.5)
    assert verdict.text == (
        "cifar10_uniform_0.2 ieg (wrn28-10): reproduced; 96.00 ± 1.41 % over 2 seeds; "
        "figure 96.20 (a paper); tolerance 0.5"
    )


def test_the_standard_form_of_a_released_network_is_another_network():
    released = Published("cifar10_uniform_0.2", "ieg", "wrn28-10-released", 100, 96.2, None, "x")
    verdict = only([row(0.01)], published=(released,))
    assert (verdict.outcome, verdict.figure) == (NOT_COMPARABLE, 96.2)
    assert not verdict.is_failure
    assert verdict.reason == (
        "network wrn28-10, the figure's is wrn28-10-released; no run was accepted yet"
    )
    old = [row(0.95)]
    assert only([row(0.95)], published=(released,), accepted=old).source == "last accepted run"
    own = only([row(0.95, network="wrn28-10-released")], published=(released,))
    assert (own.outcome, own.reason) == (NOT_REPRODUCED, "")
    # A figure of the very network goes before one of its other form, and the reverse is no match.
    assert only([row(0.96)], published=(released, FIGURE)).source == "a paper"
    reverse = only([row(0.96, network="wrn28-10-released")])
    assert "network wrn28-10-released, the figure's is wrn28-10" in reverse.reason


def test_the_figure_shown_is_of_the_other_form_before_one_of_another_network():
    assert only([row(0.9, network="resnet29")], published=PUBLISHED).figure == 92.0
    assert only([row(0.9)], published=tuple(reversed(PUBLISHED))).figure == 96.2


def test_far_above_a_paper_is_remarked():
    assert "protocol" in only([row(0.98)]).reason
    assert only([row(0.965)]).reason == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network": "resnet29"}, "network resnet29, the figure's is wrn28-10"),
        ({"clean_labels_used": 50}, "published with 100 clean labels, not 50"),
        ({"true_flip_rate": 0.2}, "another noise convention: 18.0%"),
        ({"steps": 20}, "trained 20 steps, the recipe has 500"),
        ({"recipe": "cifar_cpu"}, "recipe cifar_cpu follows no paper"),
        ({"recipe_steps": None}, "does not record the length"),
        ({"changed_settings": ["batch_size"]}, "settings differ from the recipe's: batch_size"),
        ({"method": "l2r"}, "no published figure"),
        ({"status": "failed", "reason": "out of memory"}, "1 of 1 trials did not finish: out of"),
    ],
)
def test_another_protocol_is_not_comparable_and_says_why(change, reason):
    verdict = only([row(0.1, **change)])
    assert verdict.outcome == NOT_COMPARABLE
    assert reason in verdict.text
    assert not verdict.is_failure


def test_a_failed_seed_takes_its_group_out():
    verdict = only([row(0.1, 0), row(None, 1, status="failed", reason="killed")])
    assert verdict.outcome == NOT_COMPARABLE
    assert verdict.reason == "1 of 2 trials did not finish: killed"
    assert verdict.seeds == 1


def test_a_recalled_figure_is_shown_and_no_gate():
    recalled = Published("cifar10_uniform_0.2", "ieg", "wrn28-10", 100, 96.2, None, RECALLED)
    verdict = only([row(0.1)], published=(recalled,))
    assert (verdict.outcome, verdict.figure) == (NOT_COMPARABLE, 96.2)
    assert "recalled, not read" in verdict.reason
    # One that was read goes before it, whichever stands first.
    assert only([row(0.1)], published=(recalled, FIGURE)).outcome == NOT_REPRODUCED


def test_none_of_the_recalled_figures_gates():
    for figure in (p for p in PUBLISHED if p.is_recalled):
        same = {"clean_labels_used": figure.clean_labels, "method": figure.method}
        same["network"] = figure.network
        rate = float(figure.dataset.rpartition("_")[2])
        wrong = rate * (0.9 if figure.dataset.startswith("cifar10_") else 0.99)
        bad = row(0.01, dataset=figure.dataset, true_flip_rate=wrong, **same)
        verdict = only([bad], published=PUBLISHED)
        assert verdict.outcome == NOT_COMPARABLE
        assert "recalled, not read" in verdict.reason, figure


def test_a_published_run_of_another_noise_convention_is_not_comparable():
    other = Published(
        "cifar10_uniform_0.2", "ieg", "wrn28-10", 100, 96.2, None, "x", true_flip_rate=0.2
    )
    assert "20.0% of the published run's" in only([row(0.96)], published=(other,)).reason
    assert only([row(0.96, true_flip_rate=0.2)], published=(other,)).outcome == REPRODUCED


@pytest.mark.parametrize(
    ("accuracy", "outcome"),
    [(0.900, REPRODUCED), (0.895, REPRODUCED), (0.905, REPRODUCED), (0.894, NOT_REPRODUCED),
     (0.906, NOT_REPRODUCED)],
)  # fmt: skip
def test_the_accepted_run_is_held_to_on_both_sides(accuracy, outcome):
    old = [row(0.89, 0), row(0.91, 1)]  # mean 90.0
    verdict = only([row(accuracy)], published=(), accepted=old)
    assert verdict.outcome == outcome
    assert verdict.source == "last accepted run"
    assert verdict.figure == pytest.approx(90)


def test_a_published_figure_goes_before_the_accepted_run():
    assert only([row(0.96)], accepted=[row(0.5)]).source == "a paper"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps": 400}, "another steps: 400, not 500"),
        ({"clean_labels_used": 10}, "another clean_labels_used: 10, not 100"),
        ({"method": "l2r"}, "has no such trial"),
        ({"status": "failed"}, "trials of the accepted run did not finish"),
    ],
)
def test_an_accepted_run_of_another_protocol_is_not_comparable(change, reason):
    verdict = only([row(0.9)], published=(), accepted=[row(0.9, **change)])
    assert verdict.outcome == NOT_COMPARABLE
    assert reason in verdict.reason


def test_without_any_figure_the_verdict_says_what_is_missing():
    verdict = only([row(0.9)], published=())
    assert verdict.reason == "no published figure; no run was accepted yet"


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(UserError, match="tolerance"):
        judge(group_rows([row(0.9)]), (FIGURE,), tolerance)


def test_each_method_and_data_set_has_its_own_verdict_and_failures_are_listed():
    rows = [row(0.5), row(0.5, method="l2r"), row(0.5, dataset="cifar10_uniform_0.4")]
    verdicts = judge(group_rows(rows), (FIGURE,), 0.5)
    assert [v.outcome for v in verdicts] == [NOT_REPRODUCED, NOT_COMPARABLE, NOT_COMPARABLE]
    assert failures(verdicts) == [verdicts[0].text]


def test_the_table_is_markdown_and_the_document_strict_json():
    rows = [row(0.96), row(None, dataset="cifar10_uniform_0.4", status="failed", reason="a | b")]
    verdicts = judge(group_rows(rows), (FIGURE,), 0.5)
    lines = markdown(verdicts).splitlines()
    assert lines[0] == "1 reproduced, 0 not reproduced, 1 not comparable"
    assert {line.count("|") for line in lines[2:]} == {9}
    document = json.loads(as_record(verdicts, schedule="nightly").encode())
    assert document["schedule"] == "nightly"
    assert [v["outcome"] for v in document["verdicts"]] == [REPRODUCED, NOT_COMPARABLE]


def test_an_accepted_file_is_read_or_refused_in_one_line():
    assert accepted_rows(None, "accepted/x.json") == []
    assert accepted_rows(ReportRecord(trials=[row(0.9)]), "x") == [row(0.9)]
    damaged = ReportRecord(trials=[{"dataset": "digits"}])
    with pytest.raises(UserError, match=r"accepted/x\.json is not a results\.json"):
        accepted_rows(damaged, "accepted/x.json")


def test_a_planned_trial_says_how_it_departs_from_its_recipe(tmp_path):
    def planned(**changes):
        request = SweepRequest(
            "digits_uniform_0.4", methods=("l2r",), results=str(tmp_path), **changes
        )
        (trial,) = plan.plan(request).trials
        return json.loads((tmp_path / "trials" / trial / "config.json").read_text())

    plain = planned()
    assert (plain["num_steps"], plain["recipe_steps"]) == (600, 600)
    assert plain["changed_settings"] == []
    short = planned(steps=50)
    assert (short["num_steps"], short["recipe_steps"]) == (50, 600)
    assert short["changed_settings"] == []
    other = planned(settings=("method.lookahead_lr=0.2", "optimizer.momentum=0.8"))
    assert other["changed_settings"] == ["method_settings.lookahead_lr", "optimizer.momentum"]


def test_papers_recipes_are_told_from_ours():
    ours = {name for name, family in build.FAMILIES.items() if family.source == OURS}
    assert {"digits", "cifar_cpu"} <= ours
    assert not {"cifar", "longtail", "longtail_noise", "webvision"} & ours
