# SPDX-License-Identifier: Apache-2.0
"""What a family of recipes is: one data regime, with settings and published figures per method."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ieg_core.experiment.config import AugmentationConfig, HeadConfig, ImagesConfig, ScheduleConfig
from ieg_core.experiment.methods import (
    IEGSettings,
    LogitAdjustmentSettings,
    MethodSettings,
    SupervisedSettings,
    method_spec,
)

OURS = "ours"
"""The source of a family that follows no paper."""
BOTH_PAPERS = "IEG, FSR, arXiv 1910.00701, 2109.03216, and the authors' released settings"
RECALLED = "recalled"
"""The source of a figure that was not read anywhere: shown, but never gated on."""
FSR_INDEX = "FSR, third-party index of its table"


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
      dataset: Data-set spec.
      method: Our name of the method.
      network: Our name of the network.
      clean_labels: Number of clean labels used.
      accuracy: Test accuracy in percent.
      deviation: Its published deviation, or None.
      source: Where it was read; RECALLED where it was not.
      true_flip_rate: Its share of wrong labels, where its noise convention differs from that of
        ieg_core.experiment.dataset_spec (uniform noise redraws from all classes, as in IEG); None
        where it does not.
    """

    dataset: str
    method: str
    network: str
    clean_labels: int
    accuracy: float
    deviation: float | None
    source: str
    true_flip_rate: float | None = None

    @property
    def is_recalled(self) -> bool:
        """Whether the figure was recalled rather than read."""
        return self.source == RECALLED

    @property
    def text(self) -> str:
        """The figure for display, such as "80.2 ± 0.3"."""
        spread = f" ± {self.deviation}" if self.deviation is not None else ""
        return f"{self.accuracy}{spread}{' (recalled)' if self.is_recalled else ''}"


@dataclass(frozen=True)
class Family:
    """A family of recipes: one data regime, with a recipe for every method.

    Attributes:
      name: The value of RECIPE that selects it.
      data: The data it is meant for, in words.
      bases: The base data sets it accepts.
      example: The data set that `ieg recipes` shows in the family's command.
      network: Its default network.
      schedule: Learning-rate schedule and length.
      source: Where the settings come from.
      other_networks: Other networks that its sources report.
      batch_size: Examples per step.
      augmentation: The weak and the strong view.
      evaluations: Minimum number of evaluations per run.
      settings: Settings by method; a method that is not listed has its defaults.
      schedules: Schedules by method, where they differ from the family's.
      batch_sizes: Batch sizes by method, where they differ from the family's.
      images: How images are read, for a data set of files.
      figures: Published accuracies of its recipes.
      max_epochs: Upper bound of a length in steps, for data sets of any size; 0 for none.
      head: The head that is trained on features, for a family whose networks are pre-trained.
      choices: Overrides by data set and method, for a tuned family (`ieg_core.recipes.tuned`).
    """

    name: str
    data: str
    bases: tuple[str, ...]
    example: str
    network: str
    schedule: ScheduleConfig
    source: str
    other_networks: tuple[str, ...] = ()
    batch_size: int = 100
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    evaluations: int = 10
    settings: Mapping[str, MethodSettings] = field(default_factory=dict)
    schedules: Mapping[str, ScheduleConfig] = field(default_factory=dict)
    batch_sizes: Mapping[str, int] = field(default_factory=dict)
    images: ImagesConfig | None = None
    figures: tuple[Published, ...] = ()
    max_epochs: int = 0
    head: HeadConfig | None = None
    choices: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def takes(self, method: str) -> bool:
        """Returns whether a method trains what this family trains: a network, or a head."""
        return self.head is None or method_spec(method).trains_heads

    def settings_of(self, method: str) -> MethodSettings:
        """Returns the settings of a method in this family; raises UserError for an unknown name."""
        return self.settings.get(method) or method_spec(method).settings()


def for_ieg(settings: IEGSettings) -> dict[str, MethodSettings]:
    """Returns entries of `Family.settings` for IEG and for IEG without its look-ahead."""
    return {"ieg": settings, "ieg_no_lookahead": settings}


# With the paper's p = 5, a training of 1,500 steps from 10 clean labels per class never leaves its
# initial state, in which every pseudo-label is the same class. With its k = 20 it leaves it late,
# and the network is not trained by the end (docs/decisions/methods.md, 25).
SHORT_IEG = for_ieg(IEGSettings(pseudo_label_loss_weight=1.0, consistency_loss_weight=4.0))
"""IEG's settings for a training of 1,500 steps."""

LONG_TAIL_SMOOTHING = 0.1
"""FSR's label smoothing on long tails, and so the baselines'."""
SMOOTHED_BASELINES: Mapping[str, MethodSettings] = MappingProxyType(
    {
        **dict.fromkeys(
            ("supervised", "supervised_strong", "mixup", "probe_only"),
            SupervisedSettings(label_smoothing=LONG_TAIL_SMOOTHING),
        ),
        "logit_adjustment": LogitAdjustmentSettings(label_smoothing=LONG_TAIL_SMOOTHING),
    }
)
"""The baselines of long tails, with FSR's label smoothing."""

# Without MixUp the margin favors hard examples, which is what imbalance without noise needs.
PURE_IMBALANCE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **dict.fromkeys(
            SMOOTHED_BASELINES, MappingProxyType({"label_smoothing": LONG_TAIL_SMOOTHING})
        ),
        "fsr": MappingProxyType(
            {
                "mixup": False,
                "label_smoothing": LONG_TAIL_SMOOTHING,
                "weighting": "shift",
                "pseudo_label_loss_weight": 0.0,
            }
        ),
    }
)
"""What a method changes on a long tail without label noise, in every family."""
