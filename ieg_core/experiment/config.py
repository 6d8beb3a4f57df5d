# SPDX-License-Identifier: Apache-2.0
"""What decides the outcome of a run: frozen, typed, validated, written beside every result."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ieg_core.errors import UserError, require, unknown_name
from ieg_core.experiment import networks
from ieg_core.experiment.methods import MethodSettings, SupervisedSettings, method_spec

PRECISIONS = ("float32", "bfloat16")
SCHEDULES = ("cosine", "cosine_restarts", "step", "exponential")
STRONG_POLICIES = ("autoaugment", "autoaugment_imagenet", "randaugment", "digits")
LENGTHS = ("num_steps", "num_epochs", "num_cycles", "max_steps")
"""The settings of a schedule of which one gives the length of a run."""
LARGEST_IN_MEMORY = 96
"""Side in pixels up to which all images are held in memory."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Momentum SGD: m ← μ·m + ∇, θ ← θ − lr·m, and the moving average of θ that is evaluated.

    Attributes:
      learning_rate: lr at its highest; the schedule lowers it.
      momentum: μ.
      weight_decay: wd of R(θ) = ½·wd·Σ‖kernel‖².
      ema_decay: Highest decay of the moving average; of step t it is min(ema_decay, (1+t)/(10+t)).
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "above 0")
        require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "in [0, 1)")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "at least 0")
        require(0 <= self.ema_decay < 1, "optimizer.ema_decay", self.ema_decay, "in [0, 1)")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes and how long the training is.

    Exactly one of `num_steps`, `num_epochs`, `num_cycles` and `max_steps` gives the length; an
    epoch is ⌊training examples / batch size⌋ steps, a cycle of `cosine_restarts` is
    `cycle_multiplier` times as long as the one before it, the first being one epoch.

    Attributes:
      name: One of SCHEDULES.
      num_steps: Length in steps.
      num_epochs: Length in epochs.
      num_cycles: Length in cycles of `cosine_restarts`.
      max_steps: Length in as many whole cycles of `cosine_restarts` as fit so many steps.
      cycle_multiplier: Of `cosine_restarts`, upstream's --cos_t_mul.
      cycle_decay: Of `cosine_restarts`: each cycle starts at so much of the one before it.
      boundary_fractions: Of `step`: where in the run the rate drops, as fractions of its length.
      factor: Of `step`: what the rate is multiplied by at each boundary; of `exponential`: what is
        left of it at the end.
      warmup_epochs: Epochs in which the rate rises linearly to the schedule's; part of the length.
    """

    name: str = "cosine"
    num_steps: int = 0
    num_epochs: int = 0
    num_cycles: int = 0
    max_steps: int = 0
    cycle_multiplier: float = 1.5
    cycle_decay: float = 0.9
    boundary_fractions: tuple[float, ...] = ()
    factor: float = 0.01
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise unknown_name("schedule", self.name, SCHEDULES)
        lengths = [getattr(self, name) for name in LENGTHS]
        require(
            sum(length > 0 for length in lengths) == 1 and min(lengths) >= 0,
            "schedule",
            dict(zip(LENGTHS, lengths, strict=True)),
            f"given exactly one positive length of {', '.join(LENGTHS)}",
        )
        for name in ("num_cycles", "max_steps"):
            require(
                getattr(self, name) == 0 or self.name == "cosine_restarts",
                f"schedule.{name}",
                getattr(self, name),
                "0 unless schedule.name is cosine_restarts",
            )
        require(
            self.cycle_multiplier >= 1,
            "schedule.cycle_multiplier",
            self.cycle_multiplier,
            "at least 1",
        )
        require(0 < self.cycle_decay <= 1, "schedule.cycle_decay", self.cycle_decay, "in (0, 1]")
        require(0 < self.factor <= 1, "schedule.factor", self.factor, "in (0, 1]")
        require(self.warmup_epochs >= 0, "schedule.warmup_epochs", self.warmup_epochs, "at least 0")
        require(
            list(self.boundary_fractions) == sorted(set(self.boundary_fractions))
            and all(0 < fraction < 1 for fraction in self.boundary_fractions),
            "schedule.boundary_fractions",
            self.boundary_fractions,
            "increasing and inside (0, 1)",
        )


@dataclass(frozen=True)
class AugmentationConfig:
    """The views of an image that a step trains on.

    Attributes:
      pad: Of the weak view: black pixels added on each side before a random crop back.
      flip: Whether both views are mirrored with probability ½.
      strong: Policy of the strong view, one of STRONG_POLICIES.
      strong_pad: Of the strong view: mid-grey pixels added on each side before the crop.
      cutout: Side in pixels of the square blanked in the strong view; 0 for none.
    """

    pad: int = 2
    flip: bool = True
    strong: str = "autoaugment"
    strong_pad: int = 4
    cutout: int = 16

    def __post_init__(self) -> None:
        if self.strong not in STRONG_POLICIES:
            raise unknown_name("strong augmentation", self.strong, STRONG_POLICIES)
        for name in ("pad", "strong_pad"):
            pixels = getattr(self, name)
            require(0 <= pixels <= 64, f"augmentation.{name}", pixels, "between 0 and 64 pixels")
        require(self.cutout >= 0, "augmentation.cutout", self.cutout, "at least 0 pixels")


@dataclass(frozen=True)
class ImagesConfig:
    """How one's own images are read; see `ieg_core.data.image_folder.decode` for the rules.

    Attributes:
      size: Side in pixels of what the network sees. Up to LARGEST_IN_MEMORY each image is brought
        to this size once and kept in memory; beyond, images are read from disk and cropped anew at
        every visit.
      channels: 3 for colour, 1 for grey.
      max_broken_fraction: Share of the files that may be unreadable, and are left out.
      max_megapixels: An image of more is not decoded but counts as unreadable.
      min_crop_area: Smallest share of a large image that a random crop shows.
      eval_sets: Names of further test sets that lie beside the test set.
    """

    size: int = 32
    channels: int = 3
    max_broken_fraction: float = 0.01
    max_megapixels: int = 90
    min_crop_area: float = 0.08
    eval_sets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(4 <= self.size <= 1024, "images.size", self.size, "between 4 and 1024 pixels")
        require(self.channels in (1, 3), "images.channels", self.channels, "1 or 3")
        for name in ("max_broken_fraction", "min_crop_area"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"images.{name}", share, "in [0, 1]")
        require(self.max_megapixels > 0, "images.max_megapixels", self.max_megapixels, "above 0")

    @property
    def held_in_memory(self) -> bool:
        """Whether images of this size are kept in memory."""
        return self.size <= LARGEST_IN_MEMORY


@dataclass(frozen=True)
class Config:
    """Everything that decides the outcome of a run, apart from the prepared data and the code.

    Attributes:
      recipe: Name of the recipe family that it came from.
      dataset: Data-set spec, in canonical spelling.
      method: Name of the method.
      network: Name of the network.
      seed: Seed of every random draw.
      batch_size: Examples a step, over all replicas.
      probe_per_class: Clean examples a class; 0 for a method without a probe.
      evaluations: How many evaluations to make at least, equally spaced; those of a
        `cosine_restarts` schedule lie at the ends of its cycles besides.
      precision: "float32" or "bfloat16" (computation only; variables stay float32).
      synchronized_batch_norm: BatchNorm moments over all replicas, or over each one's own share.
      images: How the images are read, where the data set is one's own; else None.
    """

    recipe: str
    dataset: str
    method: str
    network: str
    seed: int = 0
    batch_size: int = 100
    probe_per_class: int = 10
    evaluations: int = 12
    precision: str = "float32"
    synchronized_batch_norm: bool = True
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(num_steps=600))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    method_settings: MethodSettings = field(default_factory=SupervisedSettings)
    images: ImagesConfig | None = None

    def __post_init__(self) -> None:
        spec = method_spec(self.method)
        networks.validate(self.network)
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        require(self.batch_size > 0, "batch_size", self.batch_size, "at least 1")
        require(self.evaluations > 0, "evaluations", self.evaluations, "at least 1")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if spec.uses_probe:
            require(self.probe_per_class > 0, "probe_per_class", self.probe_per_class, "above 0")
        elif self.probe_per_class != 0:
            raise UserError(
                f"probe_per_class={self.probe_per_class} was asked for, but the method "
                f"{self.method!r} uses no probe: leave it out"
            )
        if type(self.method_settings) is not spec.settings:
            raise UserError(
                f"method {self.method!r} takes {getattr(spec.settings, '__name__', '?')}, "
                f"got {type(self.method_settings).__name__}"
            )


def to_dict(config: Any) -> dict[str, Any]:
    """Turns a configuration into nested plain values, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> Config:
    """Rebuilds a configuration from `to_dict`'s output, also after JSON.

    Raises:
      UserError: A key is unknown or missing, or a value is out of range.
    """
    method = values.get("method")
    if not isinstance(method, str):
        raise UserError(f"configuration: expected a method's name under 'method', got {method!r}")
    settings_type = method_spec(method).settings
    sections: dict[str, Callable[..., Any]] = {
        "optimizer": OptimizerConfig,
        "schedule": ScheduleConfig,
        "augmentation": AugmentationConfig,
        "method_settings": settings_type,
        "images": ImagesConfig,
    }
    try:
        return Config(
            **{
                key: sections[key](
                    **{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
                )
                if key in sections and value is not None
                else value
                for key, value in values.items()
            }
        )
    except TypeError as error:
        raise UserError(
            f"configuration: {error}; it was written by another version of this program"
        ) from error
