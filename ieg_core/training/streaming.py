# SPDX-License-Identifier: Apache-2.0
"""Streaming of images that are too large to be held on the device.

Small images stay on the device throughout a run, and the draws of a step select among them. Large
ones are read here, on the host, with an independent random-resized crop for each view, and are
sent along with the draws. The rest of a view (flip, policy, Cutout) is computed on the device. The
crop is a pure function of (seed, step), like every draw. The next call is read while the device
computes the current one: two calls of at most CALL_BYTES are in memory, regardless of the number
of images.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from ieg_core.data.base import Images, Source
from ieg_core.data.label_set import LabelSet
from ieg_core.draws import generator
from ieg_core.experiment.config import Config
from ieg_core.experiment.methods import method_spec
from ieg_core.training import step_draws

CALL_BYTES: Final = 64 * 2**20
"""Maximum bytes of images per call, unless a single step needs more."""


class LazyImages:
    """Images that are read slice by slice, as a replacement for an array of all images."""

    def __init__(self, read: Callable[[np.ndarray], Images], count: int) -> None:
        self._read, self._count = read, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice) -> Images:
        return self._read(np.arange(self._count)[rows])


def streams_from_disk(source: Source) -> bool:
    """Returns whether the images of a source are read batch by batch."""
    return source.crops is not None


def steps_per_call(config: Config, source: Source, longest: int) -> int:
    """Returns the number of steps per call, at most `longest`."""
    if not streams_from_disk(source):
        return longest
    step_bytes = sum(views(config).values()) * int(np.prod(source.image_shape))
    return max(1, min(longest, CALL_BYTES // step_bytes))


def stacked_draws(
    config: Config,
    label_set: LabelSet,
    source: Source,
    dictionary: np.ndarray | None,
    steps: tuple[int, int],
    length: int,
) -> step_draws.Arrays:
    """Draws the steps [start, stop), including the images of each view if they are streamed.

    Args:
      config: Method, batch size, views, seed.
      label_set: The prepared labels and splits.
      source: The images.
      dictionary: The method's dictionary during these steps, int [capacity]; None without one.
      steps: (start, stop).
      length: Number of steps to pad to.

    Returns:
      The arrays of `training.step_draws.stacked_draws`; for a streamed source also
      "<view>_images" uint8 [length, B, H, W, channels] for each of the method's views.
    """
    drawn = step_draws.stacked_draws(config, label_set, *steps, length)
    if source.crops is None:
        return drawn
    for prefix, size in views(config).items():
        images = np.zeros((length, size, *source.image_shape), np.uint8)
        for place, step in enumerate(range(*steps)):
            ids = view_ids(prefix, {name: drawn[name][place] for name in drawn}, dictionary)
            images[place] = source.crops(ids, crop_draws(config.seed, prefix, step, size))
        drawn[f"{prefix}images"] = images
    return drawn


def crop_draws(seed: int, prefix: str, step: int, size: int) -> np.ndarray:
    """Draws the crops of a view.

    Args:
      seed: The trial's seed.
      prefix: Of the view's draws (`views`).
      step: The step.
      size: B of the view.

    Returns:
      float64 [B, 4] in [0, 1), as `image_folder.decode.crop_box` takes them.
    """
    return generator.generator(seed, f"{prefix}crop", step).random((size, 4))


def views(config: Config) -> dict[str, int]:
    """Returns the batch size of each view of a step, by the prefix of its draws."""
    spec = method_spec(config.method)
    views = {}
    if spec.trains_on_noisy:
        views["view_"] = config.batch_size
        if spec.view == "both":
            views["strong_"] = config.batch_size
    if spec.trusted != "none":
        views["probe_view_"] = config.method_settings.trusted_batch_size(config.batch_size)
    return views


def view_ids(prefix: str, drawn: step_draws.Arrays, dictionary: np.ndarray | None) -> np.ndarray:
    """Returns the indices of the examples in a view, given the draws of its step."""
    if prefix != "probe_view_":
        return drawn["ids"]
    return drawn["probe_ids"] if dictionary is None else dictionary[drawn["probe_slots"]]
