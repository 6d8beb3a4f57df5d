# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from scripts import record_bench
from scripts.record_bench import ALL, Records, measure, suspicions


def test_every_record_is_high_where_a_label_looks_wrong():
    given = np.array([0, 0])
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    examples = {
        "weight": np.array([1.0, 0.0]), "label_coefficient": np.array([1.0, 0.2]),
        "margin": np.array([0.8, -0.6]), "given_label_loss": np.array([0.1, 2.0]),
        "prediction": p, "final_prediction": p, "label_posterior": p, "visits": np.array([3, 3]),
    }  # fmt: skip
    found = suspicions(examples, given)
    assert len(found) == 4 + 2 * 3 + 1
    assert all(score[1] > score[0] for score in found.values())
    np.testing.assert_allclose(found["1 − q(given)"], [0.1, 0.8])


def trial(dataset, sign, seed=0):
    """Two records, of which one is right for every kind and the other has another sign in each."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(400) < 0.3
    weak, turned = (rng.normal(size=400) + shift * wrong for shift in (1.5, 1.5 * sign))
    return Records(dataset, {"good": weak, "turned": turned}, wrong)


def test_a_combination_has_not_seen_the_kind_of_noise_that_it_judges():
    uniform, again, other = (
        trial("digits_uniform_0.4", 1), trial("digits_uniform_0.2", 1, 1),
        trial("digits_asymmetric_0.4", -1, 2),
    )  # fmt: skip
    found = measure([uniform, again, other])
    # What it learns of `turned` on the other kind is wrong on this one, and so costs precision.
    for place, one in enumerate((uniform, again, other)):
        good, combined = (found[name][place][one.dataset] for name in ("good", ALL))
        assert combined < good
    alike = measure([uniform, trial("digits_asymmetric_0.4", 1, 2)])
    assert alike[ALL][0]["digits_uniform_0.4"] > alike["good"][0]["digits_uniform_0.4"]
    assert ALL not in measure([uniform, again])


def test_labels_whose_truth_is_unknown_are_refused(tmp_path, capsys):
    assert record_bench.main([str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [("cifar10_human_worst", "people's"), ("digits_uniform_0.4", "uniform")],
)
def test_kinds_of_noise(dataset, kind):
    assert Records(dataset, {}, np.zeros(0, bool)).kind == kind
