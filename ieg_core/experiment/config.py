# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: frozen, typed, validated, and stored with every result."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ieg_core.errors import UserError, require, unknown_name
from ieg_core.experiment import feature_sources, networks
from ieg_core.experiment.methods import (
    LEFT_OUT_AT_DEFAULT,
    MethodSettings,
    SupervisedSettings,
    method_spec,
)

PRECISIONS = ("float32", "bfloat16")
SCHEDULES = ("cosine", "cosine_restarts", "step", "exponential")
STRONG_POLICIES = (
    "autoaugment",
    "autoaugment_imagenet",
    "autoaugment_imagenet_released",
    "randaugment",
    "digits",
    "weak",
)
LENGTHS = ("num_steps", "num_epochs", "num_cycles")
"""The settings of a schedule of which exactly one sets the length of a run."""
LENGTH_KEYS = tuple(f"schedule.{name}" for name in LENGTHS)
"""Their keys, as overrides name them."""
_USERS_OF_LENGTHS = {
    "num_cycles": ("cosine_restarts",),
    "decay_steps": ("cosine_restarts", "exponential"),
    "clock_after_warmup": ("cosine_restarts",),
}
LARGEST_IN_MEMORY = 96
"""Largest side in pixels at which all images are held in memory."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Momentum SGD: m ← μ·m + ∇, θ ← θ − lr·m, and the moving average of θ that is evaluated.

    Attributes:
      learning_rate: Peak of lr; the schedule lowers it.
      momentum: μ.
      weight_decay: wd of R(θ) = ½·wd·Σ‖kernel‖².
      ema_decay: Maximum decay of the moving average; at step t it is min(ema_decay, (1+t)/(10+t)).
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
    """The learning-rate schedule and the length of the training.

    Exactly one of `num_steps`, `num_epochs` and `num_cycles` sets the length; an epoch is
    ⌊training examples / batch size⌋ steps, a cycle of `cosine_restarts` is `cycle_multiplier` times
    as long as the one before it.

    Attributes:
      name: One of SCHEDULES.
      num_steps: Length in steps.
      num_epochs: Length in epochs.
      num_cycles: Length in cycles of `cosine_restarts`.
      cycle_multiplier: For `cosine_restarts`, upstream's --cos_t_mul.
      cycle_decay: For `cosine_restarts`: initial rate of a cycle relative to the one before it.
      boundary_fractions: For `step`: where the rate drops, as fractions of the run's length.
      factor: For `step`: factor on the rate at each boundary; for `exponential`: final rate
        relative to the initial one, or the factor on the rate at each of `decay_steps`.
      decay_steps: For `cosine_restarts`: length of the first cycle in steps; 0 for one epoch. For
        `exponential`: above 0, the rate drops every so many steps and is constant in between.
      warmup_epochs: Epochs in which the rate rises linearly to the schedule's; part of the length.
      clock_after_warmup: For `cosine_restarts`: whether the first cycle begins after the warm-up
        instead of with it; the warm-up then adds to the length in cycles.
    """

    name: str = "cosine"
    num_steps: int = 0
    num_epochs: int = 0
    num_cycles: int = 0
    cycle_multiplier: float = 1.5
    cycle_decay: float = 0.9
    boundary_fractions: tuple[float, ...] = ()
    factor: float = 0.01
    decay_steps: int = 0
    warmup_epochs: int = 0
    clock_after_warmup: bool = False

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
        for name, users in _USERS_OF_LENGTHS.items():
            require(
                not getattr(self, name) or self.name in users,
                f"schedule.{name}",
                getattr(self, name),
                f"left out unless schedule.name is {' or '.join(users)}"
                + (" (give the length in steps, with STEPS)" if name in LENGTHS else ""),
            )
        require(self.decay_steps >= 0, "schedule.decay_steps", self.decay_steps, "at least 0")
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
        require(
            self.name != "step" or len(self.boundary_fractions) > 0,
            "schedule.boundary_fractions",
            self.boundary_fractions,
            "given with schedule.name=step, whose rate never drops without them, such as "
            "schedule.boundary_fractions=0.5,0.75",
        )


@dataclass(frozen=True)
class AugmentationConfig:
    """The views of an image that a step trains on.

    Attributes:
      pad: Weak view: black pixels added on each side before a random crop to the original size.
      flip: Whether both views are mirrored with probability ½.
      strong: Policy of the strong view, one of STRONG_POLICIES; "weak" makes it a second weak view,
        without Cutout.
      strong_pad: Strong view: mid-gray pixels added on each side before the crop.
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
    """How images from files are read; see `ieg_core.data.image_folder.decode` for the rules.

    Attributes:
      size: Side in pixels of the network's input. Up to LARGEST_IN_MEMORY each image is resized
        once and kept in memory; above, images are read from disk and cropped again at every visit.
      channels: 3 for color, 1 for grayscale.
      max_broken_fraction: Largest share of unreadable files that is tolerated; they are skipped.
      max_megapixels: An image with more is not decoded and counts as unreadable.
      min_crop_area: Smallest share of a large image's area that a random crop covers.
      eval_sets: Names of further test sets next to the test set.
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
        """Whether images of this size are held in memory."""
        return self.size <= LARGEST_IN_MEMORY


@dataclass(frozen=True)
class HeadConfig:
    """A classifier on the features of a pre-trained network, trained by Adam in place of a network.

    Attributes:
      hidden: Units of the hidden layer (ReLU); 0 for a linear classifier.
      learning_rate: Initial rate; decays to 0 along half a cosine.
      weight_decay: Decoupled: each step shrinks weights by it times the learning rate.
    """

    hidden: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.3

    def __post_init__(self) -> None:
        require(self.hidden >= 0, "head.hidden", self.hidden, "at least 0")
        require(self.learning_rate > 0, "head.learning_rate", self.learning_rate, "above 0")
        require(self.weight_decay >= 0, "head.weight_decay", self.weight_decay, "at least 0")


@dataclass(frozen=True)
class Config:
    """Everything that determines the outcome of a run, apart from the prepared data and the code.

    Attributes:
      recipe: Name of the recipe family that it is based on.
      dataset: Data-set spec, in canonical form.
      method: Name of the method.
      network: Name of the network; with a head, of the features (see `feature_sources`).
      seed: Seed of every random draw.
      batch_size: Examples per step, over all replicas.
      probe_per_class: Clean examples per class; 0 for a method without a probe.
      evaluations: Minimum number of evaluations, equally spaced; a `cosine_restarts` schedule adds
        one at the end of each cycle.
      precision: "float32" or "bfloat16" (computation only; variables stay float32).
      synchronized_batch_norm: Whether BatchNorm moments are over all replicas, or over each
        replica's share.
      validation_fraction: Share of each class's training examples, by given label, that is held out
        and measured in place of the test set, by given labels: for choosing settings. 0 trains on
        all of them and measures the test set.
      pretrained: File that the network starts from, `.keras` or `.safetensors`, except for its
        dense layer; empty to draw all values.
      images: How the images are read, for a data set of files; else None.
      head: The head to train on features of `network`; None to train the network.
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
    validation_fraction: float = 0.0
    pretrained: str = ""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(num_steps=600))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    method_settings: MethodSettings = field(default_factory=SupervisedSettings)
    images: ImagesConfig | None = None
    head: HeadConfig | None = None

    def __post_init__(self) -> None:
        spec = method_spec(self.method)
        (networks.validate if self.head is None else feature_sources.parse)(self.network)
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        require(self.batch_size > 0, "batch_size", self.batch_size, "at least 1")
        require(self.evaluations > 0, "evaluations", self.evaluations, "at least 1")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if spec.uses_probe:
            require(self.probe_per_class > 0, "probe_per_class", self.probe_per_class, "above 0")
        elif self.probe_per_class != 0:
            raise UserError(
                f"probe_per_class is {self.probe_per_class}: expected 0, since the method "
                f"{self.method!r} uses no probe; leave it out"
            )
        require(
            0 <= self.validation_fraction <= 0.5,
            "validation_fraction",
            self.validation_fraction,
            "in [0, 0.5]",
        )
        if self.pretrained:
            require(
                self.pretrained.endswith(networks.STARTS),
                "pretrained",
                self.pretrained,
                f"a file ending in {' or '.join(networks.STARTS)}",
            )
            require(
                self.head is None and not networks.is_custom(self.network),
                "pretrained",
                self.pretrained,
                f"left out, since the network {self.network!r} has its own values",
            )
        if type(self.method_settings) is not spec.settings:
            raise UserError(
                f"settings of method {self.method!r} must be {spec.settings.__name__}, got "
                f"{type(self.method_settings).__name__}"
            )


def network_digest(config: Config) -> str:
    """Returns a digest of the files behind a configuration's network, its start, or features.

    Returns:
      SHA-256, hexadecimal; "" if the names alone say what they are.

    Raises:
      UserError: When a file or module is missing.
    """
    if config.head is not None:
        return feature_sources.source_digest(config.network)
    return networks.source_digest(config.network, config.pretrained)


def to_dict(config: Any) -> dict[str, Any]:
    """Converts a configuration to nested plain values for JSON.

    Settings marked as LEFT_OUT_AT_DEFAULT are only written with another value, so that adding one
    changes no configuration that does without it.
    """
    return {
        item.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for item in dataclasses.fields(config)
        for value in [getattr(config, item.name)]
        if LEFT_OUT_AT_DEFAULT not in item.metadata or value != item.default
    }


def from_dict(values: Mapping[str, Any]) -> Config:
    """Rebuilds a configuration from `to_dict`'s output, also after JSON.

    Raises:
      UserError: When a key is unknown or missing, or a value is out of range.
    """
    method = values.get("method")
    if not isinstance(method, str):
        raise UserError(f"method must be a method's name, got {method!r}")
    settings_type = method_spec(method).settings
    sections: dict[str, Callable[..., Any]] = {
        "optimizer": OptimizerConfig,
        "schedule": ScheduleConfig,
        "augmentation": AugmentationConfig,
        "method_settings": settings_type,
        "images": ImagesConfig,
        "head": HeadConfig,
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
            f"configuration: {error}; another version of this program wrote it: use that version"
        ) from error
