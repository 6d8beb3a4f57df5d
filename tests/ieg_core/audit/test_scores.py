# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.audit.scores import rival_share, score_examples
from ieg_core.errors import UserError

BELIEVED = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
GIVEN = np.array([0, 1, 0, 0])


def test_the_score_by_hand():
    wanted = [0.2 / (0.2 + 0.7), 0.7 / (0.7 + 0.2), 0.5, 1.0]
    np.testing.assert_allclose(rival_share(BELIEVED, GIVEN), wanted)
    assert rival_share(np.zeros((1, 3)), np.array([1])).tolist() == [0.5]


def test_the_score_is_in_the_unit_interval_and_above_a_half_another_class_is_suggested():
    rng = np.random.default_rng(0)
    believed = rng.dirichlet(np.full(7, 0.2), 1000)
    given = rng.integers(0, 7, 1000)
    said = {"visits": np.ones(1000), "final_prediction": believed}
    found = score_examples(said, given)
    assert found.score.min() >= 0
    assert found.score.max() <= 1
    np.testing.assert_array_equal(found.score > 0.5, found.suggested != given)
    found = score_examples({"visits": np.ones(1000), "label_posterior": believed}, given)
    assert found.score.min() >= 0
    assert found.score.max() <= 1
    # Up to a half the given class is the likeliest; above, it may be so of many.
    assert (found.suggested == given)[found.score < 0.5].all()
    assert (found.score >= 0.5)[found.suggested != given].all()


def test_predictions_at_the_end_go_before_those_of_the_run_and_need_no_visit():
    said = {
        "visits": np.array([1, 0, 2, 3]),
        "all_visits": np.array([9, 9, 9, 0]),
        "prediction": BELIEVED,
    }
    found = score_examples(said, GIVEN)
    assert found.visits.tolist() == [9, 9, 9, 0]
    assert found.suggested.tolist() == [0, 0, 0, 0]  # never seen: its own label
    assert np.isnan(found.score).tolist() == [False, False, False, True]
    assert "over the whole run" in found.belief
    found = score_examples(said | {"final_prediction": BELIEVED[::-1]}, GIVEN)
    assert found.visits.tolist() == [1, 0, 2, 3]
    assert found.suggested.tolist() == [2, 0, 0, 0]
    assert not np.isnan(found.score).any()
    assert "at the end" in found.belief
    # Of the image and its label together: the probability that the label is wrong.
    found = score_examples(said | {"label_posterior": BELIEVED, "final_prediction": 0}, GIVEN)
    assert found.visits.tolist() == [1, 0, 2, 3]
    np.testing.assert_allclose(found.score, [0.3, 0.8, 0.5, 1.0])
    assert found.formula.startswith("1 − q")


def test_without_beliefs_there_is_no_score():
    with pytest.raises(UserError, match="older version; train it again"):
        score_examples({"visits": np.ones(4), "weight": np.ones(4)}, GIVEN)


def test_the_transition_by_hand():
    # With the likeliest class for the true one, over what was seen: classes 0, 0, 0 and 2.
    said = {"visits": np.ones(4), "final_prediction": BELIEVED}
    found = score_examples(said, GIVEN).transition
    np.testing.assert_allclose(found, [[2 / 3, 1 / 3, 0], [0, 0, 0], [1, 0, 0]])
    said = {"all_visits": np.array([1, 0, 1, 1]), "visits": np.ones(4), "prediction": BELIEVED}
    found = score_examples(said, GIVEN).transition
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 0, 0], [1, 0, 0]])
    # From q, with every class: 1.2 + 0.7 of the first, 0.7 + 0.2 and 1.1 + 0.1 of the others.
    wanted = [[1.2 / 1.9, 0.7 / 1.9, 0], [0.7 / 0.9, 0.2 / 0.9, 0], [1.1 / 1.2, 0.1 / 1.2, 0]]
    found = score_examples({"visits": np.ones(4), "label_posterior": BELIEVED}, GIVEN).transition
    np.testing.assert_allclose(found, wanted)
