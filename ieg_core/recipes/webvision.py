# SPDX-License-Identifier: Apache-2.0
"""WebVision-mini, on 8 GPUs.

Papers: IEG, arXiv 1910.00701; FSR, arXiv 2109.03216; and the authors' released settings.

    make sweep DATASET=webvisionmini RECIPE=webvision
"""

from ieg_core.experiment.config import AugmentationConfig, ImagesConfig, ScheduleConfig
from ieg_core.experiment.methods import FSRSettings, IEGSettings
from ieg_core.recipes.family import BOTH_PAPERS, FSR_INDEX, Family, Published, for_ieg

_INDEX = f"{FSR_INDEX}; 72.3 on ImageNet's validation images"

WEBVISION = Family(
    name="webvision",
    data="WebVision-mini, on 8 GPUs",
    bases=("webvisionmini",),
    example="webvisionmini",
    network="resnet50",
    batch_size=64,
    schedule=ScheduleConfig(name="cosine_restarts", max_steps=1_000_000),
    augmentation=AugmentationConfig(pad=0, strong="autoaugment_imagenet", strong_pad=0, cutout=112),
    source=BOTH_PAPERS,
    settings={
        "fsr": FSRSettings(capacity=5000, start_epoch=20, pseudo_label_loss_weight=1.0),
        **for_ieg(IEGSettings(pseudo_label_loss_weight=4.0, consistency_loss_weight=8.0)),
    },
    schedules={
        "fsr": ScheduleConfig(
            name="cosine_restarts", max_steps=123_300, cycle_multiplier=2.0, warmup_epochs=3
        ),
    },
    batch_sizes={"fsr": 128},
    images=ImagesConfig(size=224, eval_sets=("imagenet",)),
    figures=(Published("webvisionmini", "fsr", "resnet50", 0, 74.9, None, _INDEX),),
)
