# SPDX-License-Identifier: Apache-2.0
"""Notes on a plan: what was fitted to the data, and what would work better."""

from collections.abc import Sequence

from ieg_core.data.label_set import LabelSet
from ieg_core.experiment.config import Config
from ieg_core.experiment.length import nearest_cycle_ends, num_steps, steps_per_epoch
from ieg_core.recipes.features import FEATURES
from ieg_core.sweep.request import SweepRequest

_SMALLEST_PHOTO = 28


def size_note(fitted: Config, config: Config, examples: int) -> str:
    """Says what is other than the recipe's because the images are few."""
    changes = []
    if fitted.batch_size != config.batch_size:
        changes.append(f"batches of {fitted.batch_size} instead of {config.batch_size}")
    if fitted.schedule != config.schedule:
        steps, before = fitted.schedule.num_steps, config.schedule.num_steps
        epochs = steps // steps_per_epoch(fitted, examples)
        changes.append(f"{steps} steps ({epochs} epochs) instead of {before}")
    return (
        f"{examples} images are few: {', '.join(changes)}; SET=batch_size=… and STEPS choose others"
    )


def feature_advice(request: SweepRequest, label_sets: Sequence[LabelSet]) -> list[str]:
    """Recommends features for photos where networks would be trained from scratch on a CPU."""
    is_photo = any(
        each.spec.base in FEATURES.bases and min(each.image_shape[:2]) >= _SMALLEST_PHOTO
        for each in label_sets
    )
    if request.accelerator or request.features or request.network or not is_photo:
        return []
    advice = (
        "no GPU: for photos, features of a pre-trained network take minutes and give better "
        f"results than training from scratch; try FEATURES={FEATURES.network} "
        f"METHODS=supervised,forward,retrain (ieg_core.fit: network={FEATURES.network!r})"
    )
    return [advice]


def late_starts(configurations: Sequence[Config], label_sets: Sequence[LabelSet]) -> list[str]:
    """Names the methods whose trainings end before what they do begins."""
    notes = []
    for config, label_set in zip(configurations, label_sets, strict=True):
        epoch_steps = steps_per_epoch(config, len(label_set.train_ids))
        steps, first = num_steps(config, epoch_steps), config.method_settings.first_epoch
        if first and steps <= first * epoch_steps:
            notes.append(
                f"{config.method}: {steps} steps end before epoch {first}, where it begins to "
                "weight examples; lower method.start_epoch, or choose more STEPS"
            )
    return notes


def cut_cycles(configurations: Sequence[Config], label_sets: Sequence[LabelSet]) -> list[str]:
    """Names the lengths that end inside a cosine cycle, and the nearest that do not."""
    methods: dict[tuple[int, ...], dict[str, None]] = {}
    for config, label_set in zip(configurations, label_sets, strict=True):
        epoch_steps = steps_per_epoch(config, len(label_set.train_ids))
        steps = num_steps(config, epoch_steps)
        if nearest := nearest_cycle_ends(config, epoch_steps, steps):
            methods.setdefault((steps, *nearest), {})[config.method] = None
    return [
        f"{', '.join(names)}: {steps} steps end inside a cosine cycle, where the learning rate is "
        f"still high; STEPS={' or '.join(map(str, nearest))} ends with one"
        for (steps, *nearest), names in methods.items()
    ]
