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
    from sklearn.metrics import average_precision_score  # a second to import

    return float(average_precision_score(wrong, score)) if wrong.any() else None


def auroc(wrong: np.ndarray, score: np.ndarray) -> float | None:
    """Computes the share of (wrong, right) pairs of labels in which the wrong one scores higher.

    A tie counts as one half.

    Args:
      wrong: Which labels are wrong, bool [n].
      score: Higher means more suspicious, float [n].

    Returns:
      In [0, 1], 0.5 for a random score; None if all or no labels are wrong.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wrong, score)) if wrong.any() and not wrong.all() else None


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
