# SPDX-License-Identifier: Apache-2.0
"""The host's draws for a step (examples, crops, MixUp partners), a pure function of the step."""

from collections.abc import Mapping

import numpy as np

from ieg_core.data.label_set import LabelSet
from ieg_core.draws import generator
from ieg_core.draws.views import strong_view_draws
from ieg_core.experiment.config import Config
from ieg_core.experiment.methods import method_spec

Arrays = dict[str, np.ndarray]


def step_draws(config: Config, label_set: LabelSet, step: int) -> Arrays:
    """Draws the random numbers of one step; every array has the batch on axis 0.

    Args:
      config: Method, batch size, views, seed.
      label_set: The prepared labels and splits.
      step: t, counted from 0.

    Returns:
      For a method that trains on the noisy set: "ids" int32 [B], and the draws of its view with
      the prefix "view_"; a method with both views has those of the strong view as "strong_…". For
      a method with a probe: "probe_ids" int32 [B_p]; with a dictionary: "probe_slots" int32 [B_p];
      both are class-balanced and come with "probe_view_…". For a method with MixUp:
      "mix_partners" int32 [B, K], "mix_coefficients" float32 [B, K] and, for K > 1,
      "mix_probe_choice" int32 [B].
    """
    spec = method_spec(config.method)
    size = config.batch_size
    drawn: Arrays = {}
    if spec.trains_on_noisy:
        ids = generator.batch_ids(label_set.train_ids, size, config.seed, step)
        drawn["ids"] = ids.astype(np.int32)
        strong_only = spec.view == "strong"
        drawn |= _view("view_", size, config, label_set, step, strong=strong_only)
        if spec.view == "both":
            drawn |= _view("strong_", size, config, label_set, step, strong=True)
    if spec.uses_probe:
        ids = generator.balanced_batch(
            label_set.probe_ids,
            label_set.clean_labels[label_set.probe_ids],
            label_set.num_classes,
            size,
            config.seed,
            step,
            "probe",
        )
        drawn["probe_ids"] = ids.astype(np.int32)
        # The published methods use the weak view of the probe; the ablation trains on it alone.
        strong_probe = not spec.trains_on_noisy and spec.view == "strong"
        drawn |= _view("probe_view_", size, config, label_set, step, strong=strong_probe)
    if spec.uses_dictionary:
        drawn |= _dictionary(config, label_set, step)
    if spec.mixes:
        alpha = config.method_settings.soft_label_mixup
        drawn |= _mixing(spec.mixes, size, config.seed, step, 0.5 if alpha is None else alpha)
    return drawn


def _view(
    prefix: str, size: int, config: Config, label_set: LabelSet, step: int, *, strong: bool
) -> Arrays:
    strong = strong and config.augmentation.strong != "weak"
    rng = generator.generator(config.seed, f"{prefix}strong" if strong else f"{prefix}weak", step)
    drawn: Mapping[str, np.ndarray]
    if strong:
        drawn = strong_view_draws(rng, size, config.augmentation, label_set.image_shape)
    else:
        drawn = generator.crop_flip(rng, size, config.augmentation.pad, config.augmentation.flip)
    return {f"{prefix}{name}": values for name, values in drawn.items()}


def _dictionary(config: Config, label_set: LabelSet, step: int) -> Arrays:
    capacity = config.method_settings.dictionary_capacity
    size = config.method_settings.trusted_batch_size(config.batch_size)
    slots = np.arange(capacity)
    drawn = generator.balanced_batch(
        slots,
        slots // (capacity // label_set.num_classes),
        label_set.num_classes,
        size,
        config.seed,
        step,
        "dictionary",
    )
    view = _view("probe_view_", size, config, label_set, step, strong=False)
    return {"probe_slots": drawn.astype(np.int32)} | view


def _mixing(blocks: int, size: int, seed: int, step: int, alpha: float) -> Arrays:
    """Draws MixUp: partners are a permutation of K·B, β ~ Beta(α, α), then β ← max(β, 1 − β)."""
    rng = generator.generator(seed, "mixup", step)
    partners = rng.permutation(blocks * size).reshape(blocks, size).T
    shape = (size, blocks)
    coefficients = rng.beta(alpha, alpha, shape) if alpha else np.ones(shape)
    drawn = {
        "mix_partners": partners.astype(np.int32),
        "mix_coefficients": np.maximum(coefficients, 1 - coefficients).astype(np.float32),
    }
    if blocks > 1:
        drawn["mix_probe_choice"] = rng.integers(0, size, size, dtype=np.int32)
    return drawn


def stacked_draws(
    config: Config, label_set: LabelSet, start: int, stop: int, length: int
) -> Arrays:
    """Draws the steps [start, stop), stacked on axis 0.

    Args:
      config: The configuration.
      label_set: The labels.
      start: The first step.
      stop: The step after the last one, above `start`.
      length: Steps of the result; the last one is repeated up to it.

    Returns:
      The arrays of `step_draws`, [length, …] each.
    """
    steps = [step_draws(config, label_set, step) for step in range(start, stop)]
    steps += [steps[-1]] * (length - len(steps))
    return {name: np.stack([drawn[name] for drawn in steps]) for name in steps[0]}


def device_data(images: np.ndarray | None, label_set: LabelSet) -> Mapping[str, np.ndarray]:
    """Collects the arrays that stay on the device throughout a run.

    The clean labels of the noisy set stay on the host, so nothing on the device can train on them.

    Args:
      images: All training images of the base, uint8 [N, H, W, channels]; None if they are streamed.
      label_set: The labels.

    Returns:
      "images", unless streamed; "labels" int32 [N], the given labels; and "probe_labels" int32 [N],
      clean on the probe and 0 elsewhere; and with a teacher "soft_labels" float32 [N, C].
    """
    probe_labels = np.zeros_like(label_set.noisy_labels)
    probe_labels[label_set.probe_ids] = label_set.clean_labels[label_set.probe_ids]
    labels: Arrays = {"labels": label_set.noisy_labels, "probe_labels": probe_labels}
    if label_set.soft_labels is not None:
        labels["soft_labels"] = label_set.soft_labels
    return labels if images is None else {"images": images, **labels}
