# SPDX-License-Identifier: Apache-2.0
"""Any CIFAR, short enough for a CPU.

Paper: none. Figures measured here: docs/RESULTS.md.

    make sweep DATASET=cifar10_uniform NOISE=0.8 RECIPE=cifar_cpu
"""

from ieg_core.experiment.config import ScheduleConfig
from ieg_core.experiment.methods import FSRSettings
from ieg_core.recipes.family import OURS, SHORT_IEG, Family

CIFAR_CPU = Family(
    name="cifar_cpu",
    data="any CIFAR, on a CPU",
    bases=("cifar10", "cifar100"),
    example="cifar10_uniform_0.8",
    network="resnet11",
    schedule=ScheduleConfig(name="cosine", num_steps=1500),
    source=OURS,
    settings={"fsr": FSRSettings(start_epoch=1), **SHORT_IEG},
)
