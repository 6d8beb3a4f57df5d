# SPDX-License-Identifier: Apache-2.0
"""Checks a method's choices against the clean labels; monitoring only, never used in training."""

from collections.abc import Mapping

import numpy as np

from ieg_core.data.label_set import LabelSet


def step_diagnostics(
    examples: Mapping[str, np.ndarray], ids: np.ndarray, label_set: LabelSet
) -> dict[str, float]:
    """Summarizes the per-example outputs of a method over several steps.

    Args:
      examples: Per-example values by name, float32 [K, B, …]: "weight" w [K, B],
        "label_coefficient" λ [K, B], "pseudo_label" [K, B, C].
      ids: Indices of the examples, int [K, B].
      label_set: Given and clean labels.

    Returns:
      From w: "weight_on_clean", the share of Σw on correctly labeled examples; "zero_weights", the
      share of weights that are 0; "clean_share", the share of correctly labeled examples, which is
      what random weights would reach; and for imbalanced data "weight_ratio_rare_to_common", the
      mean weight of the rarest class divided by that of the most common. From λ:
      "label_coefficient_on_clean" and "label_coefficient_on_noisy", its mean on correctly and on
      wrongly labeled examples. From pseudo-labels: "most_frequent_pseudo_label", the share of their
      most frequent class, which is 1 in IEG's early collapse; and "pseudo_label_accuracy". Values
      that are undefined (no wrong label, no weight) or unknown (no true labels) are left out.
    """
    given, clean = label_set.noisy_labels[ids], label_set.clean_labels[ids]
    right = given == clean
    diagnostics: dict[str, float] = {}
    if "weight" in examples:
        weights = examples["weight"]
        diagnostics["zero_weights"] = float((weights == 0).mean())
        if label_set.spec.imbalance is not None:
            diagnostics |= _rare_to_common(weights, given, label_set.num_classes)
        if _is_known(label_set):
            diagnostics["clean_share"] = float(right.mean())
            if weights.sum() > 0:
                diagnostics["weight_on_clean"] = float(weights[right].sum() / weights.sum())
    guessed = examples["pseudo_label"].argmax(-1) if "pseudo_label" in examples else None
    if guessed is not None:
        counts = np.bincount(guessed.ravel())
        diagnostics["most_frequent_pseudo_label"] = float(counts.max() / guessed.size)
    if not _is_known(label_set):
        return diagnostics
    if "label_coefficient" in examples:
        trust = examples["label_coefficient"]
        diagnostics |= _mean_where("label_coefficient_on_clean", trust, right)
        diagnostics |= _mean_where("label_coefficient_on_noisy", trust, ~right)
    if guessed is not None:
        diagnostics["pseudo_label_accuracy"] = float((guessed == clean).mean())
    return diagnostics


def dictionary_diagnostics(dictionary: np.ndarray, label_set: LabelSet) -> dict[str, float]:
    """Measures how clean a dictionary is and how much of it is repetition.

    Args:
      dictionary: Indices of the examples, int [capacity].
      label_set: Given and clean labels.

    Returns:
      "dictionary_purity", the share of slots whose given label is correct, if the true labels are
      known; "dictionary_repeats", the share of slots that repeat an example; and
      "dictionary_repeated_classes", the number of given classes with fewer examples than slots.
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
    """Averages weights over the examples of each given class, relative to the overall mean.

    Args:
      weights: Mean weight of each example over its visits, float [N].
      visits: Number of visits of each example, int [N]; examples without a visit do not count.
      label_set: Given labels.

    Returns:
      C values; None for a class without a visited example. All 0 if all weights are 0.
    """
    seen = visits > 0
    mean = weights[seen].mean() if seen.any() else 0.0
    means: list[float | None] = []
    for number in range(label_set.num_classes):
        of_class = weights[seen & (label_set.noisy_labels == number)]
        relative = float(of_class.mean() / mean) if len(of_class) and mean else 0.0
        means.append(relative if len(of_class) else None)
    return means


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
