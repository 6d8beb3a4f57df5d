# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ieg_core.audit.measures import auroc, average_precision, precision_recall

WRONG = np.array([True, False, True, False, False])


def test_average_precision_by_hand():
    # From the top: wrong (P 1/1), right, wrong (P 2/3).
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert average_precision(WRONG, score) == pytest.approx((1 / 1 + 2 / 3) / 2)
    # Of equal scores all count at once: two of three, with recall 1.
    assert average_precision(WRONG, np.array([1, 1, 1, 0, 0])) == pytest.approx(2 / 3)
    assert average_precision(WRONG, np.zeros(5)) == pytest.approx(2 / 5)


def test_auroc_by_hand():
    # Of the 2·3 pairs the wrong one is above in (3 + 2).
    assert auroc(WRONG, np.array([0.9, 0.8, 0.7, 0.6, 0.5])) == pytest.approx(5 / 6)
    assert auroc(WRONG, np.zeros(5)) == pytest.approx(0.5)
    assert auroc(WRONG, np.array([1.0, 0, 1, 0, 0])) == 1.0


def test_both_are_scikit_learns_also_with_ties():
    rng = np.random.default_rng(0)
    for size, levels in ((50, 5), (200, 1000), (30, 2)):
        wrong = rng.random(size) < 0.3
        score = rng.integers(0, levels, size) / levels
        assert average_precision(wrong, score) == pytest.approx(
            average_precision_score(wrong, score)
        )
        assert auroc(wrong, score) == pytest.approx(roc_auc_score(wrong, score))


def test_precision_and_recall_by_hand():
    flagged = np.array([True, True, False, False, False])
    assert precision_recall(WRONG, flagged) == (0.5, 0.5)


def test_what_is_not_defined_is_none():
    none = np.zeros(3, bool)
    assert average_precision(none, np.arange(3.0)) is None
    assert auroc(none, np.arange(3.0)) is None
    assert auroc(~none, np.arange(3.0)) is None
    assert precision_recall(none, none) == (None, None)
