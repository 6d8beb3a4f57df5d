# SPDX-License-Identifier: Apache-2.0
"""The host's draws for a step, which examples, crops and partners: a pure function of the step."""

from collections.abc import Mapping

import numpy as np

from ieg_core.config import Config
from ieg_core.data import draws as host
from ieg_core.data.overlay import Overlay
from ieg_core.data.strong_draws import strong_view_draws
from ieg_core.settings import FSRSettings, method_facts

Arrays = dict[str, np.ndarray]


def step_draws(config: Config, overlay: Overlay, step: int) -> Arrays:
    """Draws what one step needs, every array with its batch on axis 0.

    Args:
      config: Method, batch size, views, seed.
      overlay: Which examples there are.
      step: t, from 0.

    Returns:
      For a method that trains on the noisy set "ids" int32 [B] and the draws of its view, prefixed
      "view_"; with both views the strong one's are prefixed "strong_". For a method with a probe
      or a dictionary "probe_ids" or "probe_slots" int32 [B_p], class-balanced, and "probe_view_…".
      For one with MixUp "mix_partners" int32 [B, K], "mix_coefficients" float32 [B, K] and, for
      K = 3, "mix_probe_choice" int32 [B].
    """
    facts = method_facts(config.method)
    size = config.batch_size
    drawn: Arrays = {}
    if facts.trains_on_noisy:
        ids = host.batch_ids(overlay.train_ids, size, config.seed, step)
        drawn["ids"] = ids.astype(np.int32)
        strong_only = facts.view == "strong"
        drawn |= _view("view_", size, config, overlay, step, strong=strong_only)
        if facts.view == "both":
            drawn |= _view("strong_", size, config, overlay, step, strong=True)
    if facts.uses_probe:
        ids = host.balanced_batch(
            overlay.probe_ids,
            overlay.clean_labels[overlay.probe_ids],
            overlay.num_classes,
            size,
            config.seed,
            step,
            "probe",
        )
        drawn["probe_ids"] = ids.astype(np.int32)
        # The papers' methods see the probe by the weak view; the ablation trains on it alone.
        strong_probe = not facts.trains_on_noisy and facts.view == "strong"
        drawn |= _view("probe_view_", size, config, overlay, step, strong=strong_probe)
    if isinstance(config.method_settings, FSRSettings):
        drawn |= _dictionary(config.method_settings, config, overlay, step)
    if facts.mixes:
        drawn |= _mixing(facts.mixes, size, config.seed, step)
    return drawn


def _view(
    prefix: str, size: int, config: Config, overlay: Overlay, step: int, *, strong: bool
) -> Arrays:
    rng = host.generator(config.seed, f"{prefix}strong" if strong else f"{prefix}weak", step)
    drawn: Mapping[str, np.ndarray]
    if strong:
        drawn = strong_view_draws(rng, size, config.augmentation, overlay.image_shape)
    else:
        drawn = host.crop_flip(rng, size, config.augmentation.pad, config.augmentation.flip)
    return {f"{prefix}{name}": values for name, values in drawn.items()}


def _dictionary(settings: FSRSettings, config: Config, overlay: Overlay, step: int) -> Arrays:
    slots = np.arange(settings.capacity)
    drawn = host.balanced_batch(
        slots,
        slots // (settings.capacity // overlay.num_classes),
        overlay.num_classes,
        settings.dictionary_batch_size,
        config.seed,
        step,
        "dictionary",
    )
    size = settings.dictionary_batch_size
    view = _view("probe_view_", size, config, overlay, step, strong=False)
    return {"probe_slots": drawn.astype(np.int32)} | view


def _mixing(blocks: int, size: int, seed: int, step: int) -> Arrays:
    """Draws MixUp: partners are a permutation of all K·B, β ~ Beta(½, ½), β ← max(β, 1 − β)."""
    rng = host.generator(seed, "mixup", step)
    partners = rng.permutation(blocks * size).reshape(blocks, size).T
    coefficients = rng.beta(0.5, 0.5, (size, blocks))
    drawn = {
        "mix_partners": partners.astype(np.int32),
        "mix_coefficients": np.maximum(coefficients, 1 - coefficients).astype(np.float32),
    }
    if blocks > 1:
        drawn["mix_probe_choice"] = rng.integers(0, size, size, dtype=np.int32)
    return drawn


def stacked_draws(config: Config, overlay: Overlay, start: int, stop: int, length: int) -> Arrays:
    """Draws the steps [start, stop) and stacks them on axis 0, padded to `length` with the last."""
    steps = [step_draws(config, overlay, step) for step in range(start, stop)]
    steps += [steps[-1]] * (length - len(steps))
    return {name: np.stack([drawn[name] for drawn in steps]) for name in steps[0]}


def device_data(images: np.ndarray | None, overlay: Overlay) -> Mapping[str, np.ndarray]:
    """Gathers what the device holds throughout a run.

    The clean labels of the noisy set are left on the host: nothing on the device can train on them.

    Args:
      images: All training images of the base, uint8 [N, H, W, channels]; None where they are fed.
      overlay: The labels.

    Returns:
      "images", "labels" int32 [N] as given, and "probe_labels" int32 [N]: clean on the probe, 0
      elsewhere.
    """
    probe_labels = np.zeros_like(overlay.noisy_labels)
    probe_labels[overlay.probe_ids] = overlay.clean_labels[overlay.probe_ids]
    labels = {"labels": overlay.noisy_labels, "probe_labels": probe_labels}
    return labels if images is None else {"images": images, **labels}
