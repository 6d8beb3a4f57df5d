# SPDX-License-Identifier: Apache-2.0
"""CIFAR with label noise, as the papers train it.

Papers: IEG, arXiv 1910.00701; FSR, arXiv 2109.03216; and the authors' released settings.

    make sweep DATASET=cifar10_uniform NOISE=0.8 RECIPE=cifar

The figures are of the authors' code and so of its networks; `NETWORK=wrn28-10-released` trains one.
"""

from ieg_core.experiment.config import ScheduleConfig
from ieg_core.recipes.family import BOTH_PAPERS, FSR_INDEX, RECALLED, Family, Published

_ABSTRACT = "IEG abstract"
_RERUN = "independent re-run of the released code (Huawei ModelZoo, GPU row)"
_QUOTE = "a user quoting IEG's table 1, who reached 0.8x with the released code"

CIFAR = Family(
    name="cifar",
    data="CIFAR with label noise",
    bases=("cifar10", "cifar100"),
    example="cifar10_uniform_0.8",
    network="wrn28-10",
    other_networks=("resnet29", "wrn28-10-released", "resnet29-released"),
    schedule=ScheduleConfig(name="cosine_restarts", num_cycles=13, cycle_multiplier=1.5),
    source=BOTH_PAPERS,
    schedules={
        "fsr": ScheduleConfig(name="cosine_restarts", num_cycles=7, cycle_multiplier=2.0),
    },
    figures=(
        Published("cifar100_uniform_0.4", "ieg", "wrn28-10-released", 1000, 80.2, 0.3, _ABSTRACT),
        Published("cifar100_uniform_0.8", "ieg", "wrn28-10-released", 1000, 75.5, 0.2, _ABSTRACT),
        Published("cifar10_uniform_0.2", "ieg", "wrn28-10-released", 100, 96.2, None, _RERUN),
        Published("cifar10_uniform_0.2", "ieg", "resnet29-released", 100, 92.0, None, _QUOTE),
        Published("cifar10_uniform_0.4", "ieg", "wrn28-10-released", 100, 95.9, None, RECALLED),
        Published("cifar10_uniform_0.8", "ieg", "wrn28-10-released", 100, 93.7, None, RECALLED),
        Published("cifar100_uniform_0.2", "fsr", "wrn28-10-released", 0, 78.7, None, FSR_INDEX),
        Published("cifar10_uniform_0.2", "fsr", "wrn28-10-released", 0, 95.1, None, RECALLED),
        Published("cifar10_uniform_0.4", "fsr", "wrn28-10-released", 0, 93.7, None, RECALLED),
        Published("cifar10_uniform_0.8", "fsr", "wrn28-10-released", 0, 82.8, None, RECALLED),
        Published("cifar100_uniform_0.4", "fsr", "wrn28-10-released", 0, 74.2, None, RECALLED),
        Published("cifar100_uniform_0.8", "fsr", "wrn28-10-released", 0, 46.7, None, RECALLED),
    ),
)
