# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.audit import feature_posterior as fp
from ieg_core.audit.measures import average_precision
from ieg_core.errors import UserError

NONE = fp.MISSING


def draw(n=1500, classes=3, seed=0, flip=0.3):
    """Returns features in three clusters, true classes, labels of T and that T."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, classes, n)
    features = rng.normal(size=(n, 10)) + 3.5 * np.eye(10)[clean]
    transition = np.full((classes, classes), flip / 4)
    transition[np.arange(classes), (np.arange(classes) + 1) % classes] = flip * 3 / 4
    np.fill_diagonal(transition, 1 - flip)
    given = np.array([rng.choice(classes, p=transition[c]) for c in clean])
    return features, clean, given, transition


def test_the_posterior_by_hand():
    """p = (0.5, 0.3, 0.2); T's column of label 1 is (0.1, 0.8, 0.3): 0.05, 0.24, 0.06 of 0.35.

    A second annotator says 0, with (0.9, 0.5, 0.5): 0.045, 0.12, 0.03 of 0.195.
    """
    predicted = np.tile([0.5, 0.3, 0.2], (4, 1))
    first = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    second = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.5, 0.2, 0.3]])
    labels = np.array([[1, NONE], [1, 0], [NONE, NONE], [1, 0]])
    trusted = np.array([NONE, NONE, NONE, 2])
    q = fp.posterior(predicted, labels, np.stack([first, second]), trusted)
    expected = [
        np.array([0.05, 0.24, 0.06]) / 0.35,
        np.array([0.045, 0.12, 0.03]) / 0.195,
        [0.5, 0.3, 0.2],
        [0, 0, 1],
    ]
    np.testing.assert_allclose(q, expected, atol=1e-6)


def test_scores_by_hand():
    q = np.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]], np.float32)
    evidence = fp.Evidence(q, q, q, *([None] * 7))
    np.testing.assert_allclose(evidence.score(np.array([1, 1])), [0.7, 0], atol=1e-7)
    found = evidence.score(np.array([[0, NONE], [NONE, 0]]))
    np.testing.assert_allclose(found, [[0.5, np.nan], [np.nan, 1]], atol=1e-7)
    assert evidence.suggested.tolist() == [0, 1]


def test_wrong_labels_and_their_transitions_are_found():
    features, clean, given, transition = draw()
    found = fp.judge_labels([features], given, 3)
    np.testing.assert_allclose(found.transitions[0], transition, atol=0.05)
    np.testing.assert_allclose(found.reliability, [(given == clean).mean()], atol=0.03)
    assert (found.suggested == clean).mean() > 0.97
    wrong = given != clean
    suspects = np.argsort(-found.score(given))[: wrong.sum()]
    assert wrong[suspects].mean() > 0.94
    # Better than what would be without looking at features or without correcting for noise.
    assert found.agreement > 0.6 > found.chance
    assert found.q.dtype == np.float32
    np.testing.assert_allclose(found.q.sum(1), 1, atol=1e-5)


def test_counts_of_a_classifier_that_is_often_wrong_are_not_relied_on():
    """Classes in similar pairs, which half of the predictions confuse; ranked as without T."""
    rng = np.random.default_rng(0)
    centers = 0.7 * rng.normal(size=(12, 10))
    centers[1::2] = centers[::2] + 0.49 * rng.normal(size=(6, 10))
    clean = rng.integers(0, 12, 1000)
    features = centers[clean] + rng.normal(size=(1000, 10))
    wrong = rng.random(1000) < 0.3
    other = np.where(rng.random(1000) < 0.5, clean ^ 1, rng.integers(0, 12, 1000))
    given = np.where(wrong, other, clean)
    found = fp.judge_labels([features], given, 12)
    assert (found.plain.argmax(1) == clean).mean() < 0.6
    without = average_precision(given != clean, 1 - found.plain[np.arange(1000), given])
    assert average_precision(given != clean, found.score(given)) > without - 0.02


def test_a_prior_at_the_edge_is_not_the_strongest(monkeypatch):
    features, _, given, _ = draw(n=600)
    precision = fp.judge_labels([features], given, 3).precisions[0]
    monkeypatch.setattr(fp, "PRECISIONS", (precision / 10, precision / 30))
    monkeypatch.setattr(fp, "_STRONGER", (precision / 3, precision, 3 * precision, 10 * precision))
    assert fp.judge_labels([features], given, 3).precisions[0] == precision


def test_components_are_added_while_held_out_labels_are_explained_better(monkeypatch):
    rng = np.random.default_rng(3)
    clean = rng.integers(0, 2, 900)
    sources = rng.normal(size=(900, 3))
    sources[:, 2] += 3 * clean  # the third component, since it has the fewest features
    features = np.repeat(sources, [5, 4, 3], axis=1) + 0.1 * rng.normal(size=(900, 12))
    given = np.where(rng.random(900) < 0.2, 1 - clean, clean)

    def judged():
        found = fp.judge_labels([features], given, 2)
        return found.components, (found.suggested == clean).mean()

    components, accuracy = judged()
    assert components == 12
    monkeypatch.setattr(fp, "MOST_COMPONENTS", 2)
    assert judged() == (4, pytest.approx(accuracy, abs=0.01))
    assert fp.judge_labels([features], given, 2).reduction.projection.shape == (12, 2)
    monkeypatch.setattr(fp, "_MOST_PRODUCTS", 900 * 2 * 3)
    assert judged() == (3, pytest.approx(accuracy, abs=0.01))
    monkeypatch.setattr(fp, "_MOST_PRODUCTS", 900 * 2 * 2)
    components, bounded = judged()
    assert components == 2
    assert bounded < accuracy - 0.1


def test_components_without_anything_to_say_are_not_added(monkeypatch):
    monkeypatch.setattr(fp, "MOST_COMPONENTS", 1)
    rng = np.random.default_rng(4)
    clean = rng.integers(0, 2, 900)
    shared = 3 * clean + rng.normal(size=900)
    features = shared[:, None] + 0.3 * rng.normal(size=(900, 6))
    given = np.where(rng.random(900) < 0.2, 1 - clean, clean)
    assert fp.judge_labels([features], given, 2).components == 1


def test_examples_in_another_order_are_judged_alike():
    """Folds are drawn by place, so that only what they change may differ."""
    features, _, given, _ = draw(600)
    order = np.random.default_rng(5).permutation(600)
    found = fp.judge_labels([features], given, 3)
    moved = fp.judge_labels([features[order]], given[order], 3)
    assert np.abs(moved.q - found.q[order]).mean() < 0.02
    assert (moved.suggested == found.suggested[order]).mean() > 0.98


def test_classes_by_other_numbers_are_judged_alike():
    features, _, given, _ = draw(600)
    names = np.array([2, 0, 1])
    found = fp.judge_labels([features], given, 3)
    renamed = fp.judge_labels([features], names[given], 3)
    assert np.abs(renamed.q[:, names] - found.q).mean() < 0.02


def test_a_better_annotator_is_found_and_missing_labels_are_none():
    features, clean, given, _ = draw(flip=0.5)
    rng = np.random.default_rng(9)
    good = np.where(rng.random(len(clean)) < 0.9, clean, rng.integers(0, 3, len(clean)))
    good[::3] = NONE
    labels = np.column_stack([given, good])
    found = fp.judge_labels([features], labels, 3)
    expected = [(given == clean).mean(), (good == clean)[good != NONE].mean()]
    np.testing.assert_allclose(found.reliability, expected, atol=0.04)
    alone = fp.judge_labels([features], given, 3)
    assert (found.suggested == clean).mean() > (alone.suggested == clean).mean()


def test_trusted_examples_are_taken_at_their_word():
    features, clean, given, _ = draw(400, flip=0.45)
    trusted = np.where(np.arange(400) % 4 == 0, clean, NONE)
    found = fp.judge_labels([features], given, 3, trusted=trusted)
    sure = trusted != NONE
    np.testing.assert_array_equal(found.q[sure], np.eye(3)[clean[sure]])
    without = fp.judge_labels([features], given, 3)
    right = [(each.suggested == clean)[~sure].mean() for each in (found, without)]
    assert right[0] >= right[1]


def test_of_few_images_the_expected_number_of_wrong_labels_is_right():
    """λ is strong then, and p flat; without β, less than half of them would be expected."""
    features, clean, given, _ = draw(150, flip=0.15)
    wrong = given != clean
    found = fp.judge_labels([np.hstack([features, np.zeros((150, 1))])], given, 3)
    assert found.score(given).sum() == pytest.approx(wrong.sum(), rel=0.3)
    assert wrong[np.argsort(-found.score(given))[: wrong.sum()]].mean() > 0.8


def test_few_examples_are_dealt_into_folds_several_times():
    first = np.array([0, 1, NONE] * 100)
    deals = fp._deal(first, 0)
    assert deals.shape == (6, 300)
    assert (deals[:, first == NONE] == fp.NO_FOLD).all()
    assert len({tuple(each) for each in deals}) == 6
    assert fp._deal(np.zeros(1500, int), 0).shape == (1, 1500)


@pytest.mark.parametrize(
    ("labels", "trusted", "message"),
    [
        ([0, 1, 0], None, "one row per example"),
        ([0, 1, 0, 3], None, "range from 0 to 3: expected 0 to 2"),
        ([0, 1, 0, -2], None, "range from -2 to 1"),
        ([1, 1, 1, 1], None, "all labels are of one class"),
        ([[0, NONE], [1, NONE], [0, NONE], [2, NONE]], None, "label column 1 is empty"),
        ([0, 1, 0, 2], [0, 1, 5, 2], "trusted classes range from 0 to 5"),
    ],
)
def test_other_labels_are_refused(labels, trusted, message):
    features = np.random.default_rng(0).normal(size=(4, 2))
    known = None if trusted is None else np.array(trusted)
    with pytest.raises(UserError, match=message):
        fp.judge_labels([features], np.array(labels), 3, trusted=known)
