# SPDX-License-Identifier: Apache-2.0
"""The recipes: every experiment's settings as values, one family a function, one row a method."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ieg_core.errors import UserError, unknown_name
from ieg_core.experiment.config import (
    LENGTHS,
    AugmentationConfig,
    Config,
    ImagesConfig,
    OptimizerConfig,
    ScheduleConfig,
    to_dict,
)
from ieg_core.experiment.dataset_spec import DatasetSpec, parse
from ieg_core.experiment.methods import METHODS, FSRSettings, IEGSettings, method_spec


@dataclass(frozen=True)
class Family:
    """A family of recipes: one data regime, a row for every method.

    Attributes:
      name: What RECIPE asks for.
      data: The data it is meant for, in words.
      bases: The base data sets it accepts.
      network: Its network unless another is asked for.
      schedule: Learning-rate schedule and length.
      source: Where the settings come from.
      other_networks: Networks that its sources report besides.
      batch_size: Examples a step.
      augmentation: The weak and the strong view.
      evaluations: Evaluations a run, at least.
      fsr: Settings of FSR.
      fsr_schedule: Another schedule for FSR, if it has one of its own.
      fsr_batch_size: Another batch size for FSR; 0 for the same.
      ieg: Settings of IEG, if not the default ones.
      images: How images are read, for a data set of files.
    """

    name: str
    data: str
    bases: tuple[str, ...]
    network: str
    schedule: ScheduleConfig
    source: str
    other_networks: tuple[str, ...] = ()
    batch_size: int = 100
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    evaluations: int = 10
    fsr: FSRSettings = field(default_factory=FSRSettings)
    fsr_schedule: ScheduleConfig | None = None
    fsr_batch_size: int = 0
    ieg: IEGSettings | None = None
    images: ImagesConfig | None = None


OURS = "ours"
"""The source of a family that follows no paper."""
_SHORT_IEG = IEGSettings(pseudo_label_loss_weight=1.0, consistency_loss_weight=4.0)
# With the paper's p = 5 a training of 1,500 steps from 10 clean labels a class never leaves the
# state it begins in: every pseudo-label is the same class; with its k = 20 it leaves it late, and
# the network is not trained at the end (docs/decisions.md, 25).
_BOTH_PAPERS = "IEG, FSR, arXiv 1910.00701, 2109.03216, and the authors' released settings"

_CIFAR_CPU = Family(
    name="cifar_cpu",
    data="any CIFAR, on a CPU",
    bases=("cifar10", "cifar100"),
    network="resnet11",
    schedule=ScheduleConfig(name="cosine", num_steps=1500),
    source=OURS,
    fsr=FSRSettings(start_epoch=1),
    ieg=_SHORT_IEG,
)
_CIFAR = Family(
    name="cifar",
    data="CIFAR with label noise",
    bases=_CIFAR_CPU.bases,
    network="wrn28-10",
    other_networks=("resnet29",),
    schedule=ScheduleConfig(name="cosine_restarts", num_cycles=13, cycle_multiplier=1.5),
    source=_BOTH_PAPERS,
    fsr_schedule=ScheduleConfig(name="cosine_restarts", num_cycles=7, cycle_multiplier=2.0),
)
_IMBALANCE: Mapping[str, Any] = {
    "mixup": False,
    "label_smoothing": 0.1,
    "weighting": "shift",
    "pseudo_label_loss_weight": 0.0,
}
_LONGTAIL = Family(
    name="longtail",
    data="long-tailed CIFAR",
    bases=_CIFAR.bases,
    network="resnet32",
    batch_size=128,
    schedule=ScheduleConfig(
        name="step", num_epochs=200, boundary_fractions=(0.8, 0.9), factor=0.01
    ),
    augmentation=AugmentationConfig(pad=4),
    evaluations=20,
    source="FSR, arXiv 2109.03216, and the authors' released script",
    fsr=FSRSettings(capacity=3000, dictionary_batch_size=800, start_epoch=160, **_IMBALANCE),
)
_LONGTAIL_NOISE = dataclasses.replace(
    _LONGTAIL,
    name="longtail_noise",
    data="long-tailed CIFAR with label noise",
    fsr=FSRSettings(start_epoch=160, label_smoothing=0.1),
)
_DIGITS = Family(
    name="digits",
    data="the embedded digits",
    bases=("digits",),
    network="preact8",
    schedule=ScheduleConfig(name="cosine", num_steps=600),
    augmentation=AugmentationConfig(pad=1, flip=False, strong="digits", strong_pad=0, cutout=3),
    evaluations=12,
    source=OURS,
    fsr=FSRSettings(capacity=200, dictionary_batch_size=100, start_epoch=5),
)
_WEBVISION = Family(
    name="webvision",
    data="WebVision-mini, on 8 GPUs",
    bases=("webvisionmini",),
    network="resnet50",
    batch_size=64,
    schedule=ScheduleConfig(name="cosine_restarts", max_steps=1_000_000),
    augmentation=AugmentationConfig(pad=0, strong="autoaugment_imagenet", strong_pad=0, cutout=112),
    source=_BOTH_PAPERS,
    fsr=FSRSettings(capacity=5000, start_epoch=20, pseudo_label_loss_weight=1.0),
    fsr_schedule=ScheduleConfig(
        name="cosine_restarts", max_steps=123_300, cycle_multiplier=2.0, warmup_epochs=3
    ),
    fsr_batch_size=128,
    ieg=IEGSettings(pseudo_label_loss_weight=4.0, consistency_loss_weight=8.0),
    images=ImagesConfig(size=224, eval_sets=("imagenet",)),
)


def paddings(size: int) -> tuple[int, int]:
    """Returns `pad` and `strong_pad`, in pixels, for images in memory with sides of `size`."""
    return size // 16, size // 8


def folder_family(size: int) -> Family:
    """Returns the family for one's own images: network and views go by the images' size."""
    images = ImagesConfig(size=size)
    if not images.held_in_memory:
        network, batch_size = "resnet18", 64
        views = AugmentationConfig(
            pad=0, strong="autoaugment_imagenet", strong_pad=0, cutout=size // 2
        )
    elif size <= 16:
        network, batch_size = "preact8", 100
        views = AugmentationConfig(pad=1, strong="digits", strong_pad=0, cutout=size * 3 // 8)
    else:
        network, batch_size = "resnet11", 100
        pad, strong_pad = paddings(size)
        views = AugmentationConfig(pad=pad, strong_pad=strong_pad, cutout=size // 2)
    return Family(
        name="folder",
        data="one's own images",
        bases=("folder",),
        network=network,
        batch_size=batch_size,
        schedule=ScheduleConfig(name="cosine", num_steps=1500),
        augmentation=views,
        source=OURS,
        fsr=FSRSettings(start_epoch=1),
        ieg=_SHORT_IEG if size > 16 else None,
        images=images,
    )


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            _DIGITS,
            _CIFAR_CPU,
            _CIFAR,
            _LONGTAIL,
            _LONGTAIL_NOISE,
            folder_family(32),
            _WEBVISION,
        )
    }
)

DEFAULT_PROBE_PER_CLASS = 10


def weight_decay(network: str) -> float:
    """Returns the weight decay that goes with a network (METHODS, "Networks")."""
    if network in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
        return 1e-4
    return 2e-4 if network in ("resnet29", "resnet11", "resnet20") else 5e-4


def default_family(spec: DatasetSpec, accelerator: bool) -> str:
    """Chooses the family for a data set when none was asked for."""
    own = {"digits": "digits", "folder": "folder", "webvisionmini": "webvision"}
    if spec.base in own:
        return own[spec.base]
    if not accelerator:
        return "cifar_cpu"
    if spec.imbalance is not None:
        return "longtail" if spec.noise is None else "longtail_noise"
    return "cifar"


def build_config(
    spec: DatasetSpec,
    method: str,
    *,
    seed: int = 0,
    recipe: str = "",
    network: str = "",
    num_steps: int = 0,
    accelerator: bool = False,
    image_size: int = 0,
) -> Config:
    """Builds a run's configuration from its recipe family.

    Args:
      spec: The data set.
      method: Name of the method.
      seed: Seed of every random draw.
      recipe: Name of the family; empty chooses by data set and device.
      network: Another network than the family's.
      num_steps: Another length, in steps; 0 keeps the family's. A `cosine` schedule and the
        boundaries of a `step` schedule are squeezed into it, restarts keep their cycles.
      accelerator: Whether the run will have a GPU.
      image_size: Another size of images than the family's, for a data set of files; 0 keeps it.

    Returns:
      The configuration.

    Raises:
      UserError: An unknown name, or a family that is not for this data set.
    """
    chosen = method_spec(method)
    name = recipe or default_family(spec, accelerator)
    if name not in FAMILIES:
        raise unknown_name("recipe", name, FAMILIES)
    family = FAMILIES[name]
    if spec.base not in family.bases:
        fitting = [f.name for f in FAMILIES.values() if spec.base in f.bases]
        raise UserError(
            f"recipe {name!r} is for {family.data}, not for {str(spec)!r}: "
            f"choose {' or '.join(fitting)}, or leave RECIPE empty"
        )
    if family.images is not None and image_size:
        images = dataclasses.replace(family.images, size=image_size)
        family = folder_family(image_size) if name == "folder" else family
        family = dataclasses.replace(family, images=images)
    network = network or family.network
    schedule, batch_size = family.schedule, family.batch_size
    settings = chosen.settings()
    if isinstance(settings, IEGSettings):
        settings = family.ieg or settings
    if method == "fsr":
        schedule = family.fsr_schedule or schedule
        batch_size = family.fsr_batch_size or batch_size
        settings = _fsr_settings(family, spec)
    if num_steps < 0:
        raise UserError(f"steps must be at least 1 (or 0 for the recipe's), got {num_steps}")
    if num_steps:
        unset: Mapping[str, Any] = dict.fromkeys(LENGTHS, 0)
        schedule = dataclasses.replace(schedule, **{**unset, "num_steps": num_steps})
    return Config(
        recipe=name,
        dataset=str(spec),
        method=method,
        network=network,
        seed=seed,
        batch_size=batch_size,
        probe_per_class=DEFAULT_PROBE_PER_CLASS if chosen.uses_probe else 0,
        evaluations=family.evaluations,
        optimizer=OptimizerConfig(weight_decay=weight_decay(network)),
        schedule=schedule,
        augmentation=family.augmentation,
        method_settings=settings,
        images=family.images,
    )


def fit_to_classes(config: Config, num_classes: int, asked: Sequence[str]) -> Config:
    """Rounds FSR's dictionary to whole classes, where only the data tell how many there are.

    Args:
      config: A configuration.
      num_classes: C.
      asked: The overrides that were asked for; what one of them sets is left as it is.

    Returns:
      The configuration, with capacity and dictionary batch the next multiples of C below, at
      least C.
    """
    settings = config.method_settings
    if config.images is None or not isinstance(settings, FSRSettings):
        return config
    keys = {assignment.partition("=")[0].strip() for assignment in asked}
    changes: dict[str, Any] = {}
    for name in ("capacity", "dictionary_batch_size"):
        if f"method.{name}" not in keys:
            rounded = getattr(settings, name) // num_classes * num_classes
            changes[name] = max(num_classes, rounded)
    return dataclasses.replace(config, method_settings=dataclasses.replace(settings, **changes))


def _fsr_settings(family: Family, spec: DatasetSpec) -> FSRSettings:
    """Returns a family's FSR settings; those of pure imbalance also where it is not made for it."""
    if spec.imbalance is None or spec.noise is not None or family.fsr.weighting == "shift":
        return family.fsr
    # The margin favours hard examples without MixUp, which is what imbalance without noise wants.
    return dataclasses.replace(family.fsr, **_IMBALANCE)


def recipe_of(config: Config) -> Config:
    """Returns what a configuration's recipe gives without another length or setting."""
    return build_config(
        parse(config.dataset),
        config.method,
        seed=config.seed,
        recipe=config.recipe,
        network=config.network,
        image_size=config.images.size if config.images else 0,
    )


def changed_settings(config: Config) -> list[str]:
    """Lists the settings in which a configuration departs from its recipe, its length apart."""
    mine, plain = _flat(to_dict(config)), _flat(to_dict(recipe_of(config)))
    length = {f"schedule.{name}" for name in LENGTHS}
    return sorted(key for key in {*mine, *plain} - length if mine.get(key) != plain.get(key))


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in settings.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


Row = tuple[Family, str, Callable[..., object]]


def rows() -> list[Row]:
    """Returns every recipe: each family with each method and its settings' class."""
    return [
        (family, method, spec.settings)
        for family in FAMILIES.values()
        for method, spec in METHODS.items()
    ]
