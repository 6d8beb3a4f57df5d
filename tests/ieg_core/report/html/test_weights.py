# SPDX-License-Identifier: Apache-2.0
"""Mean weights of a long tail's classes in the report."""

import json

from ieg_core.report.html.weights import weight_views
from ieg_core.report.summary import group_trials
from ieg_core.report.trials import load_sweep
from tests.ieg_core.report.pages import write_files
from tests.records import put_json


def give(root, weights):
    for index, path in enumerate(sorted(root.glob("trials/*-l2r-*/result.json"))):
        row = json.loads(path.read_text())
        put_json(path, row | {"mean_weight_per_class": weights[index]})


def views(root):
    return weight_views(group_trials(load_sweep(root, "s1").trials))


def test_means_over_seeds_and_classes_without_a_weight(results_root):
    root = results_root(dataset="digits_imbal_0.05", rates=(0.2,), seeds=(0, 1))
    give(root, [[1.0, 3.0, None, *[1.0] * 7], [2.0, 1.0, None, *[1.0] * 7]])
    (view,) = views(root)
    ((label, texts),) = view.lines
    assert label == "l2r"
    assert texts[:4] == ("1.50", "2.00", "", "1.00")
    assert view.class_names[1] == "1"
    page = (write_files(root, "s1") / "report.html").read_text()
    assert "mean weight per class, digits_imbal_0.05_0.2" in page


def test_balanced_data_have_no_such_table(results_root):
    root = results_root(rates=(0.2,))
    give(root, [[1.0] * 10])
    assert views(root) == []
