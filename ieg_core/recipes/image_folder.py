# SPDX-License-Identifier: Apache-2.0
"""The user's own images; network and views depend on their size.

Paper: none. Walk-through: docs/own-images.md.

    make sweep DATASET=folder RECIPE=folder
"""

from ieg_core.experiment.config import AugmentationConfig, ImagesConfig, ScheduleConfig
from ieg_core.experiment.methods import FSRSettings
from ieg_core.recipes.family import OURS, SHORT_IEG, Family

MAX_EPOCHS = 100
"""Longer trainings of small sets memorize wrong labels, and cost time."""


def paddings(size: int) -> tuple[int, int]:
    """Returns `pad` and `strong_pad`, in pixels, for images of side `size` held in memory."""
    return size // 16, size // 8


def folder_family(size: int) -> Family:
    """Returns the family for the user's own images at a side of `size` pixels."""
    images = ImagesConfig(size=size)
    if not images.held_in_memory:
        network, batch_size = "resnet18", 64
        views = AugmentationConfig(
            pad=0, strong="autoaugment_imagenet", strong_pad=0, cutout=size // 2
        )
    elif size <= 16:
        network, batch_size = "preact8", 100
        views = AugmentationConfig(pad=1, strong="digits", strong_pad=0, cutout=size * 3 // 8)
    else:
        network, batch_size = "resnet11", 100
        pad, strong_pad = paddings(size)
        views = AugmentationConfig(pad=pad, strong_pad=strong_pad, cutout=size // 2)
    return Family(
        name="folder",
        data="your own images",
        bases=("folder",),
        example="folder",
        network=network,
        batch_size=batch_size,
        schedule=ScheduleConfig(name="cosine", num_steps=1500),
        max_epochs=MAX_EPOCHS,
        augmentation=views,
        source=OURS,
        settings={"fsr": FSRSettings(start_epoch=1), **(SHORT_IEG if size > 16 else {})},
        images=images,
    )
