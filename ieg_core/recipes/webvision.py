# SPDX-License-Identifier: Apache-2.0
"""WebVision-mini, on 8 GPUs.

Papers: IEG, arXiv 1910.00701; FSR, arXiv 2109.03216; and the authors' released settings, which
decide where the papers are silent. Their 483 steps an epoch (batch 128) make FSR's eight cycles and
its warm-up 124,614 steps; their script stops after 123,300, at a rate of 5e-5. IEG's 15 cycles, at
966 steps an epoch, end at 844,078 of the script's 1,000,000 steps, which ends inside a cycle.

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
    other_networks=("resnet50-released",),
    batch_size=64,
    schedule=ScheduleConfig(name="cosine_restarts", num_cycles=15),
    augmentation=AugmentationConfig(
        pad=0, strong="autoaugment_imagenet_released", strong_pad=0, cutout=16
    ),
    source=BOTH_PAPERS,
    settings={
        "fsr": FSRSettings(capacity=5000, start_epoch=20, pseudo_label_loss_weight=1.0),
        **for_ieg(IEGSettings(pseudo_label_loss_weight=4.0, consistency_loss_weight=8.0)),
    },
    schedules={
        "fsr": ScheduleConfig(
            name="cosine_restarts",
            num_cycles=8,
            cycle_multiplier=2.0,
            warmup_epochs=3,
            clock_after_warmup=True,
        ),
    },
    batch_sizes={"fsr": 128},
    images=ImagesConfig(size=224, eval_sets=("imagenet",)),
    figures=(Published("webvisionmini", "fsr", "resnet50-released", 0, 74.9, None, _INDEX),),
)
