# SPDX-License-Identifier: Apache-2.0
"""Batches of images that are too large to be held on the device.

Small images lie on the device throughout, and a step's draws say which ones it takes. Large ones
are read here, on the host, each view a random-resized crop of its own, and travel with the draws;
what else a view does (mirror, policy, Cutout) stays on the device. Which crop is a pure function of
(seed, step), like every draw. While the device computes one call, the next one is read: two calls
of at most CALL_BYTES are in memory, however many images there are.
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
"""Of images that one call of the device gets at most, unless a single step needs more."""


class LazyImages:
    """Images that are read slice by slice, in place of an array of all of them."""

    def __init__(self, read: Callable[[np.ndarray], Images], count: int) -> None:
        self._read, self._count = read, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice) -> Images:
        return self._read(np.arange(self._count)[rows])


def streams_from_disk(source: Source) -> bool:
    """Returns whether a source's images are read batch by batch."""
    return source.crops is not None


def steps_per_call(config: Config, source: Source, longest: int) -> int:
    """Returns how many steps one call of the device makes, at most `longest`."""
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
    """Draws the steps [start, stop), with the images of each view if they are fed.

    Args:
      config: Method, batch size, views, seed.
      label_set: Which examples there are.
      source: Their images.
      dictionary: FSR's dictionary during these steps, int [capacity]; else None.
      steps: (start, stop).
      length: Steps to fill up to.

    Returns:
      What `draws.stacked_draws` does; of a fed source also "<view>_images" uint8 [length, B, H, W,
      channels] for each view that the method looks at.
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
    """Draws where a step's views are cut, float64 [size, 4] in [0, 1) (`data.images.crop_box`)."""
    return generator.generator(seed, f"{prefix}crop", step).random((size, 4))


def views(config: Config) -> dict[str, int]:
    """Lists the views that a step of the method looks at, with their batch sizes."""
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
    """Returns which examples a view of `views` shows, from its step's draws."""
    if prefix != "probe_view_":
        return drawn["ids"]
    return drawn["probe_ids"] if dictionary is None else dictionary[drawn["probe_slots"]]
