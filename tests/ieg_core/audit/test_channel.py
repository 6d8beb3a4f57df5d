# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.audit import channel
from ieg_core.audit.channel import MISSING, Votes

CLASSES = 3


def votes(labels, trusted=None, weight=1.0, classes=CLASSES):
    columns = np.asarray(labels, np.int64).reshape(len(labels), -1)
    known = np.full(len(columns), MISSING) if trusted is None else np.array(trusted)
    return Votes(columns, known, weight, classes)


def draw(n, transition, seed=0, flatness=1.0):
    """Returns p ∝ (true p)^flatness, labels that T gives to classes drawn from the true p."""
    rng = np.random.default_rng(seed)
    logits = 2.5 * rng.normal(size=(n, CLASSES))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    clean = (rng.random((n, 1)) > true.cumsum(1)).sum(1)
    given = (rng.random((n, 1)) > transition[clean].cumsum(1)).sum(1)
    flat = true**flatness
    return (flat / flat.sum(1, keepdims=True)).astype(np.float32), given, clean


def symmetric(error_rate):
    return channel._symmetric(CLASSES, error_rate)


def test_counts_by_hand():
    """Label 1 of a trusted 0 with weight 3, label 0 of one believed (0.6, 0.4), none of another."""
    q = np.array([[0.2, 0.6, 0.9], [0.8, 0.4, 0.1]], np.float32)
    found = channel._counts(q, votes([1, 0, MISSING], [0, MISSING, MISSING], 3.0, classes=2))
    np.testing.assert_allclose(found, [[[0.6, 3], [0.4, 0]]], rtol=1e-6)


def test_shrinking_by_hand():
    """ε = (1 + 1) / (2 + 6) = ¼ and s = 2: rows (3 + 1.5, 1 + 0.5) / 6 and (0.5, 2 + 1.5) / 4."""
    found, prior = channel._shrink(np.array([[[3.0, 1], [0, 2]]]), 2.0)
    np.testing.assert_allclose(prior, [[0.75, 0.25], [0.25, 0.75]])
    np.testing.assert_allclose(found, [[[4.5 / 6, 1.5 / 6], [0.5 / 4, 3.5 / 4]]])


def test_evidence_by_hand():
    """T of two annotators; the second gave no label to example 1; example 2 is known to be 1."""
    transitions = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.5, 0.5]]])
    found = channel.log_evidence(
        votes([[0, 1], [1, MISSING], [0, 0]], [MISSING, MISSING, 1], classes=2), transitions
    )
    expected = [[0.9 * 0.4, 0.1, 0], [0.2 * 0.5, 0.8, 1]]
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-6)


@pytest.mark.parametrize("flatness", [0.3, 1.0, 2.0])
def test_sharpness_and_error_rate_are_found(flatness):
    transition = symmetric(0.2)
    predicted, given, _ = draw(4000, transition, flatness=flatness)
    found = channel.estimate_channel(predicted, votes(given))
    assert found.sharpness * flatness == pytest.approx(1, rel=0.12)
    np.testing.assert_allclose(found.transitions[0], transition, atol=0.03)
    # β and T are the maximum: moving them lowers the likelihood.
    p = channel.sharpen(predicted, found.sharpness)
    best = np.log((p @ found.transitions[0])[np.arange(len(given)), given]).mean()
    assert found.likelihood == pytest.approx(best, abs=1e-4)
    for factor in (0.8, 1.25):
        other = channel.sharpen(predicted, factor * found.sharpness)
        rows = np.arange(len(given))
        assert np.log((other @ found.transitions[0])[rows, given]).mean() < best


def test_few_labels_get_a_symmetric_channel_and_many_their_own():
    """Class 0 is mistaken for 1, and nothing else."""
    transition = np.array([[0.6, 0.4, 0], [0, 1, 0], [0, 0, 1.0]])
    predicted, given, _ = draw(5000, transition)
    many = channel.estimate_channel(predicted, votes(given)).transitions[0]
    np.testing.assert_allclose(many, transition, atol=0.04)
    few = channel.estimate_channel(predicted[:40], votes(given[:40])).transitions[0]
    assert abs(few - many).max() > 0.1
    predicted, given, _ = draw(300, symmetric(0.2))
    even = channel.estimate_channel(predicted, votes(given)).transitions[0]
    np.testing.assert_allclose(np.diag(even), 0.8, atol=0.1)


def test_an_annotator_with_few_labels_is_average():
    predicted, given, _ = draw(2000, symmetric(0.3))
    second = np.where(np.arange(2000) < 3, given, MISSING)
    found = channel.estimate_channel(predicted, votes(np.column_stack([given, second])))
    np.testing.assert_allclose(found.transitions[1], found.transitions[0], atol=0.05)


def test_counting_takes_the_most_likely_class():
    predicted, given, _ = draw(3000, symmetric(0.3))
    counted = channel.count_transitions(predicted, votes(given))[0]
    expected = np.zeros((CLASSES, CLASSES))
    np.add.at(expected, (predicted.argmax(1), given), 1)
    np.testing.assert_allclose(counted, expected / expected.sum(1, keepdims=True), atol=0.03)


def fewest(predicted, labels):
    transitions = channel.estimate_channel(predicted, votes(labels)).transitions
    return channel.fewest_errors(predicted, votes(labels), transitions, 1.353), transitions


def test_the_fewest_errors_that_labels_do_not_contradict():
    shares, estimates = [], []
    for n in (300, 3000):
        predicted, given, _ = draw(n, symmetric(0.2), seed=1)
        found, transitions = fewest(predicted, given)
        best = channel.fewest_errors(predicted, votes(given), transitions, 0.0)
        assert n * (best.likelihood - found.likelihood) == pytest.approx(1.353, rel=0.05)
        shares.append(1 - found.transitions[0, 0, 0])
        estimates.append(1 - transitions[0, 0, 0])
    assert shares[0] < 0.8 * estimates[0]
    assert 0.8 * estimates[1] < shares[1] < estimates[1]


def test_labels_without_errors_do_not_contradict_their_absence():
    predicted, clean, _ = draw(300, symmetric(0.0), seed=1)
    given = np.where(np.arange(300) % 4 == 0, (clean + 1) % CLASSES, clean)
    assert fewest(predicted, clean)[0] is None
    assert fewest(predicted, given)[0] is not None
    assert fewest(predicted, np.column_stack([clean, given]))[0] is not None
    assert fewest(predicted, np.where(np.arange(300) < 200, clean, MISSING))[0] is None
