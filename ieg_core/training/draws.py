# SPDX-License-Identifier: Apache-2.0
"""The host's draws for a step, which examples and which crops: a pure function of the step."""

from collections.abc import Mapping

import numpy as np

from ieg_core.config import Config
from ieg_core.data import draws as host
from ieg_core.data.overlay import Overlay
from ieg_core.settings import method_facts

Arrays = dict[str, np.ndarray]


def step_draws(config: Config, overlay: Overlay, step: int) -> Arrays:
    """Draws what one step needs.

    Args:
      config: Method, batch size, padding, seed.
      overlay: Which examples there are.
      step: t, from 0.

    Returns:
      For a method that trains on the noisy set "ids", "offset_y", "offset_x" int32 [B] and "flip"
      bool [B]; for one with a probe the same, prefixed "probe_", of a class-balanced probe batch.
    """
    facts = method_facts(config.method)
    drawn: Arrays = {}
    if facts.trains_on_noisy:
        ids = host.batch_ids(overlay.train_ids, config.batch_size, config.seed, step)
        drawn |= _view("", ids, config, step)
    if facts.uses_probe:
        ids = host.balanced_batch(
            overlay.probe_ids,
            overlay.clean_labels[overlay.probe_ids],
            overlay.num_classes,
            config.batch_size,
            config.seed,
            step,
            "probe",
        )
        drawn |= _view("probe_", ids, config, step)
    return drawn


def _view(prefix: str, ids: np.ndarray, config: Config, step: int) -> Arrays:
    rng = host.generator(config.seed, f"{prefix}weak view", step)
    crop = host.crop_flip(rng, len(ids), config.augmentation.pad, config.augmentation.flip)
    return {f"{prefix}ids": ids.astype(np.int32)} | {f"{prefix}{k}": v for k, v in crop.items()}


def stacked_draws(config: Config, overlay: Overlay, start: int, stop: int, length: int) -> Arrays:
    """Draws the steps [start, stop) and stacks them on axis 0, padded to `length` with the last."""
    steps = [step_draws(config, overlay, step) for step in range(start, stop)]
    steps += [steps[-1]] * (length - len(steps))
    return {name: np.stack([drawn[name] for drawn in steps]) for name in steps[0]}


def device_data(images: np.ndarray, overlay: Overlay) -> Mapping[str, np.ndarray]:
    """Gathers what the device holds throughout a run.

    The clean labels of the noisy set are left on the host: nothing on the device can train on them.

    Args:
      images: All training images of the base, uint8 [N, H, W, channels].
      overlay: The labels.

    Returns:
      "images", "labels" int32 [N] as given, and "probe_labels" int32 [N]: clean on the probe, 0
      elsewhere.
    """
    probe_labels = np.zeros_like(overlay.noisy_labels)
    probe_labels[overlay.probe_ids] = overlay.clean_labels[overlay.probe_ids]
    return {"images": images, "labels": overlay.noisy_labels, "probe_labels": probe_labels}
