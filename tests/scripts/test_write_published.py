# SPDX-License-Identifier: Apache-2.0
"""docs/published.md is what recipes and figures.yaml declare."""

import pytest

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


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda each: each.name)
def test_a_table_has_a_figure_for_each_column(comparison):
    for peer in (*comparison.peers, *write_published.own_rows(comparison)):
        assert len(peer.values) == len(comparison.columns)
        assert any(peer.values)
