# SPDX-License-Identifier: Apache-2.0
"""Long-tailed CIFAR, and long-tailed CIFAR with label noise.

Paper: FSR, arXiv 2109.03216, and the authors' released script. No published figure is recorded.
Where FSR mixes, with noise, its smoothing is that of the dictionary's labels alone, as released.

    make sweep DATASET=cifar10_imbal_0.02 RECIPE=longtail
    make sweep DATASET=cifar10_imbal_0.02_0.2 RECIPE=longtail_noise
"""

import dataclasses

from ieg_core.experiment.config import AugmentationConfig, ScheduleConfig
from ieg_core.experiment.methods import FSRSettings
from ieg_core.recipes.family import LONG_TAIL_SMOOTHING, PURE_IMBALANCE, SMOOTHED_BASELINES, Family

LONGTAIL = Family(
    name="longtail",
    data="long-tailed CIFAR",
    bases=("cifar10", "cifar100"),
    example="cifar10_imbal_0.02",
    network="resnet32",
    batch_size=128,
    schedule=ScheduleConfig(
        name="step", num_epochs=200, boundary_fractions=(0.8, 0.9), factor=0.01
    ),
    augmentation=AugmentationConfig(pad=4),
    evaluations=20,
    source="FSR, arXiv 2109.03216, and the authors' released script",
    settings={
        "fsr": FSRSettings(
            capacity=3000, dictionary_batch_size=800, start_epoch=160, **PURE_IMBALANCE["fsr"]
        )
    },
)

LONGTAIL_NOISE = dataclasses.replace(
    LONGTAIL,
    name="longtail_noise",
    data="long-tailed CIFAR with label noise",
    example="cifar10_imbal_0.02_0.2",
    settings={
        **SMOOTHED_BASELINES,
        "fsr": FSRSettings(start_epoch=160, label_smoothing=LONG_TAIL_SMOOTHING),
    },
)
