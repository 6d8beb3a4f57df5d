# SPDX-License-Identifier: Apache-2.0
"""Ranking measures of how well a score finds wrong labels."""

import numpy as np


def average_precision(wrong: np.ndarray, score: np.ndarray) -> float | None:
    """Computes AP = Σ_k (R_k − R_{k−1})·P_k over the distinct scores, from the highest down.

    P_k and R_k are precision and recall of all labels that score at least as high as the k-th.

    Args:
      wrong: Which labels are wrong, bool [n].
      score: Higher means more suspicious, float [n].

    Returns:
      In [0, 1]; a random score has the share of wrong labels. None if no label is wrong.
    """
    hits, taken = _cumulated(wrong, score)
    if not wrong.any():
        return None
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / taken).sum() / wrong.sum())


def auroc(wrong: np.ndarray, score: np.ndarray) -> float | None:
    """Computes the share of (wrong, right) pairs of labels in which the wrong one scores higher.

    A tie counts as one half.

    Args:
      wrong: Which labels are wrong, bool [n].
      score: Higher means more suspicious, float [n].

    Returns:
      In [0, 1], 0.5 for a random score; None if all or no labels are wrong.
    """
    num_wrong, num_right = int(wrong.sum()), int((~wrong).sum())
    if not num_wrong or not num_right:
        return None
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    ranks = mean_rank[place]
    return float((ranks[wrong].sum() - num_wrong * (num_wrong + 1) / 2) / (num_wrong * num_right))


def precision_recall(wrong: np.ndarray, flagged: np.ndarray) -> tuple[float | None, float | None]:
    """Computes precision and recall of flagged labels.

    Args:
      wrong: Which labels are wrong, bool [n].
      flagged: Which labels are flagged as wrong, bool [n].

    Returns:
      The share of the flagged labels that is wrong, None if none is flagged; and the share of the
      wrong labels that is flagged, None if none is wrong.
    """
    both = int((wrong & flagged).sum())
    precision = both / int(flagged.sum()) if flagged.any() else None
    recall = both / int(wrong.sum()) if wrong.any() else None
    return precision, recall


def _cumulated(wrong: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of wrong labels and of all labels down to each distinct score."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    return np.cumsum(wrong[order])[ends], ends + 1
