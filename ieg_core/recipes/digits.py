# SPDX-License-Identifier: Apache-2.0
"""The embedded digits, on a CPU.

Paper: none. Figures measured here: docs/RESULTS.md.

    make sweep DATASET=digits_uniform NOISE=0.8 RECIPE=digits
"""

from ieg_core.experiment.config import AugmentationConfig, ScheduleConfig
from ieg_core.experiment.methods import FSRSettings
from ieg_core.recipes.family import OURS, Family

DIGITS = Family(
    name="digits",
    data="the embedded digits",
    bases=("digits",),
    example="digits_uniform_0.8",
    network="preact8",
    schedule=ScheduleConfig(name="cosine", num_steps=600),
    augmentation=AugmentationConfig(pad=1, flip=False, strong="digits", strong_pad=0, cutout=3),
    evaluations=12,
    source=OURS,
    settings={"fsr": FSRSettings(capacity=200, dictionary_batch_size=100, start_epoch=5)},
)
