# SPDX-License-Identifier: Apache-2.0
"""What the clean labels say about a method's weights; monitoring only, nothing trains on it."""

import numpy as np


def weight_diagnostics(
    weights: np.ndarray, given_labels: np.ndarray, clean_labels: np.ndarray
) -> dict[str, float]:
    """Sums up the example weights of several steps.

    Args:
      weights: w, float [K, B].
      given_labels: The labels trained on, int [K, B].
      clean_labels: The true ones, int [K, B].

    Returns:
      "weight_on_clean", the share of Σw that lies on rightly labelled examples; "clean_share", what
      a random weight would give; "zero_weights", the share of weights that are exactly 0. The first
      is left out where all weights are 0.
    """
    clean = given_labels == clean_labels
    total = float(weights.sum())
    shares = {"clean_share": float(clean.mean()), "zero_weights": float((weights == 0).mean())}
    return shares | ({"weight_on_clean": float(weights[clean].sum()) / total} if total > 0 else {})
