# SPDX-License-Identifier: Apache-2.0
"""What the clean labels say about a method's choices; monitoring only, nothing trains on it."""

from collections.abc import Mapping

import numpy as np

from ieg_core.data.label_set import LabelSet


def step_diagnostics(
    examples: Mapping[str, np.ndarray], ids: np.ndarray, label_set: LabelSet
) -> dict[str, float]:
    """Sums up what a method said of the examples of several steps.

    Args:
      examples: Per-example values by name, [K, B, …]: "weight" w, "label_coefficient" λ,
        "pseudo_label" [K, B, C].
      ids: Indices of the examples, int [K, B].
      label_set: Given and clean labels.

    Returns:
      Of w: "weight_on_clean", the share of Σw on rightly labelled examples, "zero_weights", the
      share of weights that are 0, and for imbalance "weight_ratio_rare_to_common", mean weight of
      the rarest class over that of the commonest. Of λ: its mean on rightly and on wrongly
      labelled examples. Of pseudo-labels: how often they are right. And "clean_share", what a
      random weight would give. What is not defined (no wrong label, no weight) or not known (the
      true labels of people's own data) is left out.
    """
    given, clean = label_set.noisy_labels[ids], label_set.clean_labels[ids]
    right = given == clean
    found: dict[str, float] = {}
    if "weight" in examples:
        weights = examples["weight"]
        found["zero_weights"] = float((weights == 0).mean())
        if label_set.spec.imbalance is not None:
            found |= _rare_to_common(weights, given, label_set.num_classes)
        if _is_known(label_set):
            found["clean_share"] = float(right.mean())
            if weights.sum() > 0:
                found["weight_on_clean"] = float(weights[right].sum() / weights.sum())
    if not _is_known(label_set):
        return found
    if "label_coefficient" in examples:
        trust = examples["label_coefficient"]
        found |= _mean_where("label_coefficient_on_clean", trust, right)
        found |= _mean_where("label_coefficient_on_noisy", trust, ~right)
    if "pseudo_label" in examples:
        guessed = examples["pseudo_label"].argmax(-1)
        found["pseudo_label_accuracy"] = float((guessed == clean).mean())
    return found


def dictionary_diagnostics(dictionary: np.ndarray, label_set: LabelSet) -> dict[str, float]:
    """Says how clean the dictionary is and what of it is repetition.

    Args:
      dictionary: Indices, int [capacity].
      label_set: Given and clean labels.

    Returns:
      "dictionary_purity", the share of rightly labelled places, where true labels are known;
      "dictionary_repeats", the share of places that repeat an example; and
      "dictionary_repeated_classes", how many given classes have too few examples for their places.
    """
    right = label_set.noisy_labels[dictionary] == label_set.clean_labels[dictionary]
    examples, counts = np.unique(dictionary, return_counts=True)
    purity = {"dictionary_purity": float(right.mean())} if _is_known(label_set) else {}
    return purity | {
        "dictionary_repeats": float(1 - len(examples) / len(dictionary)),
        "dictionary_repeated_classes": float(
            len(np.unique(label_set.noisy_labels[examples[counts > 1]]))
        ),
    }


def mean_weight_per_class(
    weights: np.ndarray, visits: np.ndarray, label_set: LabelSet
) -> list[float | None]:
    """Averages weights over the examples of each given class, in units of the mean over all.

    Args:
      weights: Mean weight of each example over its visits, float [N].
      visits: How often each was visited, int [N]; those never visited do not count.
      label_set: Given labels.

    Returns:
      [C]; None for a class without a visited example. Where all weights are 0, all 0.
    """
    seen = visits > 0
    mean = weights[seen].mean() if seen.any() else 0.0
    found: list[float | None] = []
    for number in range(label_set.num_classes):
        own = weights[seen & (label_set.noisy_labels == number)]
        found.append(float(own.mean() / mean) if len(own) and mean else (0.0 if len(own) else None))
    return found


def _is_known(label_set: LabelSet) -> bool:
    return label_set.spec.clean_labels_known


def _rare_to_common(weights: np.ndarray, given: np.ndarray, num_classes: int) -> dict[str, float]:
    counts = np.bincount(given.ravel(), minlength=num_classes)
    totals = np.bincount(given.ravel(), weights.ravel(), minlength=num_classes)
    means = totals / np.maximum(counts, 1)
    rare = min((count, number) for number, count in enumerate(counts) if count)[1]
    common = int(counts.argmax())
    if means[common] <= 0:
        return {}
    return {"weight_ratio_rare_to_common": float(means[rare] / means[common])}


def _mean_where(name: str, values: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    return {name: float(values[mask].mean())} if mask.any() else {}
