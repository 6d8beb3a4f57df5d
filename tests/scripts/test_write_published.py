# SPDX-License-Identifier: Apache-2.0
"""docs/published.md is what recipes and figures.yaml declare."""

import pytest

from ieg_core.experiment.dataset_spec import parse
from ieg_core.recipes.cifar import CIFAR
from ieg_core.recipes.family import RECALLED
from ieg_core.recipes.literature import COMPARISONS
from ieg_core.recipes.published import PUBLISHED
from scripts import write_published

PAGE = write_published.PAGE.read_text(encoding="utf-8")


def test_the_page_is_up_to_date():
    assert write_published.render() == PAGE, "run .venv/bin/python -m scripts.write_published"


def test_every_paper_figure_and_every_peer_is_there_and_recalled_ones_are_marked():
    for figure in PUBLISHED:
        row = f"| {figure.dataset} | {figure.method} | {figure.text} | {figure.network} |"
        assert row in PAGE
        assert figure.is_recalled == figure.text.endswith("(recalled)")
    recalled = [p for each in COMPARISONS for p in each.peers if p.source == RECALLED]
    assert recalled
    assert all(f"{value} (recalled)" in PAGE for peer in recalled for value in peer.values if value)


def test_what_differs_is_of_the_figure_itself():
    header, *rows = write_published.paper_lines()
    column = header.index("what differs")
    found = {(row[0], row[1], row[3]): row[column] for row in rows}
    assert len(found) == len(PUBLISHED)
    ieg = found["cifar10_uniform_0.2", "ieg", "wrn28-10-released"]
    assert "length: 193,232 steps for 200,000; first cycle: 499 steps for 500" in ieg
    assert "189,747" in found["cifar100_uniform_0.8", "ieg", "wrn28-10-released"]
    small = found["cifar10_uniform_0.2", "ieg", "resnet29-released"]
    assert "weight decay of the probe loss" in small
    assert "weight decay of the probe loss" not in ieg
    fsr = found["cifar10_uniform_0.4", "fsr", "wrn28-10-released"]
    assert "length" not in fsr
    assert "two BatchNorm batches" in fsr
    assert "8 cycles and 3 epochs" in found["webvisionmini", "fsr", "resnet50-released"]


def test_a_run_of_ours_is_named_with_its_protocol():
    figure = CIFAR.figures[0]
    own = ("x/y", parse(figure.dataset), (figure.method,), "cifar", figure.network, False)

    def text(*runs):
        return write_published.runs_text(CIFAR, figure, [write_published.Run(*run) for run in runs])

    assert text(own) == "by this recipe: `x/y`"
    other = "only with another protocol: `x/y`"
    assert text((*own[:5], True)) == text((*own[:4], "", False)) == other
    assert text((*own[:2], ("l2r",), *own[3:])) == "no"


def test_our_anchors_are_the_tuned_ones_where_there_are_any():
    rows = [line.split(" | ") for line in PAGE.splitlines() if "**ours**" in line]
    at_uniform = {row[0].strip("| "): row[3] for row in rows if "ResNet-11" in row[6]}
    assert at_uniform["ieg"] == "44.7 ± 0.5"
    assert at_uniform["retrain, taught by ieg"] == "53.6 ± 1.3"
    assert " ± " in at_uniform["plain training"]


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda each: each.name)
def test_a_table_has_a_figure_for_each_column(comparison):
    for peer in (*comparison.peers, *write_published.own_rows(comparison)):
        assert len(peer.values) == len(comparison.columns)
        assert any(peer.values)
