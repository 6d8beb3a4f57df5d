# SPDX-License-Identifier: Apache-2.0
"""A head on the features of a pre-trained network, minutes on a CPU.

Paper: none. Figures measured here: docs/RESULTS.md.

    make sweep DATASET=cifar10_human_worst METHODS=supervised,forward,retrain
    FEATURES=efficientnet-lite0
"""

from ieg_core.experiment.config import HeadConfig, ScheduleConfig
from ieg_core.recipes.family import OURS, Family

FEATURES = Family(
    name="features",
    data="features of a pre-trained network, on a CPU",
    bases=("cifar10", "cifar100", "fashion_mnist", "digits"),
    example="cifar10_uniform_0.8",
    network="efficientnet-lite0",
    other_networks=("efficientnet-lite2",),
    batch_size=256,
    schedule=ScheduleConfig(name="cosine", num_epochs=20),
    source=OURS,
    head=HeadConfig(),
)
