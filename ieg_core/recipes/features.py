# SPDX-License-Identifier: Apache-2.0
"""A head on the features of a pre-trained network, minutes on a CPU.

Paper: none. Figures measured here: docs/RESULTS.md.

    make sweep DATASET=cifar10_human_worst METHODS=supervised,forward,retrain
    FEATURES=efficientnet-lite0
"""

from dataclasses import replace

from ieg_core.experiment.config import HeadConfig, ImagesConfig, ScheduleConfig
from ieg_core.experiment.feature_sources import BUILT_IN, SIZE
from ieg_core.recipes.family import OURS, Family
from ieg_core.recipes.webvision import WEBVISION

FEATURES = Family(
    name="features",
    data="features of a pre-trained network, on a CPU",
    bases=("cifar10", "cifar100", "fashion_mnist", "digits", "folder", "webvisionmini"),
    example="cifar10_uniform_0.8",
    network=BUILT_IN[0],
    other_networks=BUILT_IN[1:],
    batch_size=256,
    schedule=ScheduleConfig(name="cosine", num_epochs=20),
    source=OURS,
    head=HeadConfig(),
)


def features_of_files(family: Family, base: str) -> Family:
    """Fits the family, tuned or not, to a base data set: image files have the features' size.

    A user's own set can be small: 300 images take 180 steps in small batches instead of 20, which
    are too few (docs/RESULTS.md, "Retraining on the posterior").
    """
    if base == "folder":
        return replace(family, batch_size=32, images=ImagesConfig(size=SIZE))
    if base == "webvisionmini" and WEBVISION.images is not None:
        return replace(family, images=replace(WEBVISION.images, size=SIZE))
    return family
