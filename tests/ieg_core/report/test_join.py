# SPDX-License-Identifier: Apache-2.0
"""Several sweeps in one report, and what changed between two."""

import json

import pytest

from ieg_core.errors import UserError
from ieg_core.report import join, load_sweep, write_joined
from ieg_core.report.summary import group_rows


def change(root, sweep, **values):
    """Rewrites every cell of a sweep with other values in result.json and its configuration."""
    for name in json.loads((root / "sweeps" / sweep / "plan.json").read_text())["cells"]:
        folder = root / "cells" / name
        for file in ("result.json", "config.json"):
            record = json.loads((folder / file).read_text())
            record |= {key: value for key, value in values.items() if key in record}
            if file == "config.json":
                record["config"]["optimizer"]["learning_rate"] = 0.05
            (folder / file).write_text(json.dumps(record))


@pytest.fixture
def two(results_root_at):
    first = results_root_at("a", rates=(0.4,), methods=("supervised", "l2r"))
    second = results_root_at("b", rates=(0.4,), methods=("l2r",), seeds=(0, 1), sweep="s2")
    change(second, "s2", accuracy_ema_last=0.75, code_version="ffffffffffff")
    # Another configuration, so another name, as the digest in it would have it.
    for folder in (second / "cells").iterdir():
        folder.rename(folder.with_name(folder.name.replace("0123456789ab", "ba9876543210")))
    plan = second / "sweeps" / "s2" / "plan.json"
    plan.write_text(plan.read_text().replace("0123456789ab", "ba9876543210"))
    for path in (second / "cells").glob("*/*.json"):
        path.write_text(path.read_text().replace("0123456789ab", "ba9876543210"))
    return first / "sweeps" / "s1", second / "sweeps" / "s2"


def test_one_place_is_its_own_sweep(results_root):
    root = results_root()
    sweep = load_sweep(root, "s1")
    assert join.join([root / "sweeps" / "s1"]).rows == sweep.rows
    (root / "latest").symlink_to("sweeps/s1")
    (root / "latest" / "report").mkdir()
    assert join.join([root]).rows == sweep.rows
    assert join.join([root / "latest" / "report"]).rows == sweep.rows


def test_a_cell_is_a_sweep_of_its_own(results_root):
    root = results_root()
    cell = next(iter(load_sweep(root, "s1").cells)).row["cell"]
    assert [c.row["cell"] for c in join.join([root / "cells" / cell]).cells] == [cell]


def test_a_cell_that_two_sweeps_share_comes_once(results_root):
    root = results_root(rates=(0.4,))
    plan = json.loads((root / "sweeps" / "s1" / "plan.json").read_text())
    other = root / "sweeps" / "s2"
    other.mkdir()
    (other / "plan.json").write_text(json.dumps(plan | {"cells": plan["cells"][:1]}))
    joined = join.join([root / "sweeps" / "s1", other])
    assert [cell.row["cell"] for cell in joined.cells] == plan["cells"]
    assert {group.label for group in group_rows(joined.rows)} == {"supervised", "l2r"}


def test_cells_of_one_protocol_are_told_apart_by_letter(two):
    joined = join.join(two)
    assert joined.name == "A = s1, B = s2"
    labels = {group.label: group for group in group_rows(joined.rows)}
    assert set(labels) == {"supervised [A]", "l2r [A]", "l2r [B]"}
    # Two seeds of B at 0.75 each are not averaged with A's.
    assert labels["l2r [B]"].accuracy_ema_last.mean == pytest.approx(0.75)
    assert labels["l2r [B]"].accuracy_ema_last.count == 2
    assert labels["l2r [A]"].accuracy_ema_last.count == 1


def test_changes_between_two(two):
    found = join.changes(*map(join.find_sweep, two))
    by_label = {each.label: each for each in found.accuracy}
    before = by_label["l2r"].before.mean
    assert by_label["l2r"].points == pytest.approx(100 * (0.75 - before))
    assert by_label["supervised"].after is None
    assert by_label["supervised"].points is None
    settings = {key: (old, new) for key, old, new in found.settings}
    assert settings["optimizer.learning_rate"] == ("0.1", "0.05")
    assert settings["code that decides outcomes"] == ("0f1e2d3c4b5a", "ffffffffffff")
    assert not any("seed" in key for key in settings)


def test_the_joined_report_says_what_changed(two, tmp_path):
    folder = write_joined(two, tmp_path / "joined")
    page = (folder / "report.html").read_text()
    assert "What changed from A to B" in page
    assert "optimizer.learning_rate" in page
    table = (folder / "results.md").read_text()
    assert "B − A" in table
    cells = json.loads((folder / "results.json").read_text())["cells"]
    assert len(cells) == 4
    assert {cell["variant"] for cell in cells} == {"A", "B"}


def test_no_results_there(tmp_path):
    with pytest.raises(UserError, match="holds no results: expected a sweep's folder"):
        join.find_sweep(tmp_path)
