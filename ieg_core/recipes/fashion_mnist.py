# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST, short enough for a CPU: `cifar_cpu` with views for 28x28 gray pixels.

Paper: none. Figures measured here: docs/RESULTS.md.

    make sweep DATASET=fashion_mnist_uniform NOISE=0.8 RECIPE=fashion_mnist
"""

from ieg_core.experiment.config import AugmentationConfig, ScheduleConfig
from ieg_core.experiment.methods import FSRSettings
from ieg_core.recipes.family import OURS, SHORT_IEG, Family

FASHION_MNIST = Family(
    name="fashion_mnist",
    data="Fashion-MNIST, on a CPU",
    bases=("fashion_mnist",),
    example="fashion_mnist_uniform_0.8",
    network="resnet11",
    schedule=ScheduleConfig(name="cosine", num_steps=1500),
    augmentation=AugmentationConfig(pad=2, strong_pad=3, cutout=14),
    source=OURS,
    settings={"fsr": FSRSettings(start_epoch=1), **SHORT_IEG},
)
