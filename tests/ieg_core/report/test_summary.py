# SPDX-License-Identifier: Apache-2.0
import math

import pytest

from ieg_core.report.expected import SAME, expected_table
from ieg_core.report.summary import results_table, statistic, steps_text
from tests.ieg_core.report.pages import group_rows, row


def test_mean_and_sample_deviation_by_hand() -> None:
    # mean (1 + 2 + 6) / 3 = 3; squares 4 + 1 + 9 = 14, over n - 1 = 2: sqrt(7)
    found = statistic([1.0, 2.0, 6.0])
    assert found is not None
    assert found.mean == pytest.approx(3.0)
    assert found.deviation == pytest.approx(math.sqrt(7.0))
    assert found.count == 3


def test_one_value_has_no_deviation_and_gaps_are_left_out() -> None:
    found = statistic([None, 0.5, float("nan")])
    assert found is not None
    assert (found.mean, found.deviation, found.count) == (0.5, None, 1)
    assert statistic([None, float("nan")]) is None


def test_groups_take_finished_seeds_only() -> None:
    rows = [row("l2r", 0.8, 0.9, 0), row("l2r", 0.8, 0.94, 1), row("l2r", 0.8, None, 2)]
    (group,) = group_rows(rows)
    assert group.accuracy_ema_last is not None
    assert group.accuracy_ema_last.mean == pytest.approx(0.92)
    # deviations of 0.02 from the mean: sqrt((0.0004 + 0.0004) / 1)
    assert group.accuracy_ema_last.deviation == pytest.approx(math.sqrt(0.0008))
    assert (len(group.finished), len(group.trials)) == (2, 3)


def test_networks_are_not_averaged_with_each_other() -> None:
    rows = [row("l2r", 0.8, 0.9), row("l2r", 0.8, 0.5, network="resnet11")]
    assert [group.label for group in group_rows(rows)] == [
        "l2r (preact8, 600 steps)",
        "l2r (resnet11, 600 steps)",
    ]


def test_table_for_the_terminal() -> None:
    rows = [
        row("supervised", 0.8, 0.6),
        row("l2r", 0.8, 0.9, 0, accuracy_ema_best=0.95),
        row("l2r", 0.8, 0.94, 1, accuracy_ema_best=0.95),
        row("l2r", 0.8, None, 2),
        row("probe_only", 0.8, None),
    ]
    table = results_table(group_rows(rows))
    assert table == [
        [
            "noise",
            "method",
            "clean labels used",
            "seeds",
            "accuracy, last (EMA) %",
            "best on test %",
            "steps",
            "steps/s",
            "seconds a trial",
            "GPU-hours a trial",
        ],
        ["80 %", "supervised", "0", "1", "60.0", "60.0", "600", "20", "43.2", "-"],
        ["80 %", "l2r", "100", "2 of 3", "92.0 ± 2.8", "95.0 ± 0.0", "600", "20", "43.2", "-"],
        ["80 %", "probe_only", "100", "0 of 1", "-", "-", "600", "-", "-", "-"],
    ]


def test_gpu_hours_are_the_mean_of_the_trials_and_none_on_a_cpu() -> None:
    rows = [
        row("l2r", 0.8, 0.9, 0, gpu_hours=1.5),
        row("l2r", 0.8, 0.9, 1, gpu_hours=2.0),
        row("supervised", 0.8, 0.9, gpu_hours=0.0),
    ]
    _, gpu, cpu = results_table(group_rows(rows))
    assert (gpu[-1], cpu[-1]) == ("1.75", "-")


def test_a_further_test_set_has_a_column_of_its_own() -> None:
    rows = [
        row("l2r", 0.8, 0.9, 0, eval_sets={"photos": {"accuracy_ema": 0.5, "accuracy": 0.1}}),
        row("l2r", 0.8, 0.9, 1, eval_sets={"photos": {"accuracy_ema": 0.6}}),
        row("l2r", 0.8, 0.9, 2, eval_sets=None),
        row("supervised", 0.8, 0.95),
    ]
    header, l2r, supervised = results_table(group_rows(rows))
    place = header.index("on photos, last (EMA) %")
    # mean 0.55, deviation sqrt(2 * 0.05²) = 0.0707
    assert (l2r[place], supervised[place]) == ("55.0 ± 7.1", "-")


def test_steps_of_trials_of_different_lengths_are_a_span() -> None:
    assert steps_text([{"steps": 1200}, {"steps": 600}, {"steps": 900}]) == "600 to 1,200"
    assert steps_text([{"steps": None}]) == "-"


def test_table_names_the_data_set_where_there_are_several() -> None:
    rows = [row("l2r", 0.8, 0.9), row("l2r", 0.8, 0.9, dataset="cifar10_imbal_0.02")]
    table = results_table(group_rows(rows))
    assert [line[0] for line in table] == [
        "data set",
        "digits, uniform label noise",
        "cifar10, long tail 0.02",
    ]


def test_table_tells_labels_before_and_after_cleaning_apart() -> None:
    rows = [row("retrain", None, 0.8, dataset=name) for name in ("folder", "folder_labels")]
    table = results_table(group_rows(rows))
    assert [line[:3] for line in table] == [
        ["data set", "noise", "method"],
        ["folder", "unknown", "retrain"],
        ["folder_labels", "unknown", "retrain"],
    ]


def test_a_long_tail_shows_balanced_accuracy_and_others_do_not() -> None:
    tail = "digits_imbal_0.05"
    rows = [
        row("fsr", 0.0, 0.9, 0, dataset=tail, balanced_accuracy_ema_last=0.8),
        row("fsr", 0.0, 0.9, 1, dataset=tail, balanced_accuracy_ema_last=0.84),
        row("fsr", 0.0, 0.95, dataset="digits", balanced_accuracy_ema_last=0.95),
    ]
    header, long_tail, even = results_table(group_rows(rows))
    place = header.index("balanced, last (EMA) %")
    assert (long_tail[place], even[place]) == ("82.0 ± 2.8", "-")


def test_published_figures_stand_beside_ours_with_both_protocols() -> None:
    cifar = "cifar10_uniform_0.2"
    rows = [
        row("ieg", 0.2, 0.9, dataset=cifar, network="resnet11"),
        row("supervised", 0.2, 0.8, dataset=cifar, network="resnet11"),
        row("fsr", 0.2, None, dataset=cifar, network="resnet11", clean_labels_used=0),
    ]
    header, *lines = expected_table(group_rows(rows))
    assert [line[:6] for line in lines] == [
        [cifar, "ieg", "90.0", "resnet11, 100", "96.2", "wrn28-10-released, 100"],
        [cifar, "ieg", "90.0", "resnet11, 100", "92.0", "resnet29-released, 100"],
        [cifar, "fsr", "-", "resnet11, 0", "95.1 (recalled)", "wrn28-10-released, 0"],
    ]
    assert all(len(line) == len(header) for line in lines)
    assert lines[0][-1] == "network resnet11, the figure's is wrn28-10-released"
    assert expected_table(group_rows([row("ieg", 0.2, 0.9)])) == []


def test_a_published_figure_of_the_same_protocol_is_marked() -> None:
    own = {"dataset": "cifar10_uniform_0.2", "network": "wrn28-10-released", "recipe": "cifar"}
    own |= {"steps": 200_000, "recipe_steps": 200_000, "true_flip_rate": 0.18}
    _, first, *_ = expected_table(group_rows([row("ieg", 0.2, 0.96, **own)]))
    assert (first[4], first[-1]) == ("96.2", SAME)
    _, first, *_ = expected_table(group_rows([row("ieg", 0.2, 0.96, **own | {"steps": 1000})]))
    assert first[-1] == "trained 1000 steps, the recipe has 200000"
    _, first, *_ = expected_table(
        group_rows([row("ieg", 0.2, 0.96, **own | {"network": "wrn28-10"})])
    )
    assert first[-1] == "network wrn28-10, the figure's is wrn28-10-released"


def test_labels_that_people_gave_have_no_rate_but_a_share_of_wrong_ones() -> None:
    human = {"dataset": "cifar10_human_worst", "true_flip_rate": 0.40208}
    header, line = results_table(group_rows([row("ieg", None, 0.5, **human)]))
    assert dict(zip(header, line, strict=True))["noise"] == "40.2 % wrong"
    header, line = results_table(group_rows([row("ieg", None, 0.5)]))
    assert dict(zip(header, line, strict=True))["noise"] == "unknown"
