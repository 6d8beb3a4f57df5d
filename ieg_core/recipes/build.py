# SPDX-License-Identifier: Apache-2.0
"""Builds a run's configuration from its recipe: a family, a method, a data set."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ieg_core.errors import UserError, unknown_name
from ieg_core.experiment import feature_sources, networks
from ieg_core.experiment.config import LENGTH_KEYS, LENGTHS, Config, OptimizerConfig, to_dict
from ieg_core.experiment.dataset_spec import DatasetSpec, parse
from ieg_core.experiment.length import steps_per_epoch
from ieg_core.experiment.methods import METHODS, method_spec
from ieg_core.experiment.overrides import override
from ieg_core.recipes.cifar import CIFAR
from ieg_core.recipes.cifar_cpu import CIFAR_CPU
from ieg_core.recipes.digits import DIGITS
from ieg_core.recipes.family import PURE_IMBALANCE, Family
from ieg_core.recipes.fashion_mnist import FASHION_MNIST
from ieg_core.recipes.features import FEATURES, features_of_files
from ieg_core.recipes.image_folder import folder_family
from ieg_core.recipes.longtail import LONGTAIL, LONGTAIL_NOISE
from ieg_core.recipes.tuned import chosen_settings, tuned_families
from ieg_core.recipes.webvision import WEBVISION

_FAMILIES = (
    DIGITS,
    FASHION_MNIST,
    CIFAR_CPU,
    CIFAR,
    LONGTAIL,
    LONGTAIL_NOISE,
    folder_family(32),
    WEBVISION,
    FEATURES,
)
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.name: family for family in (*_FAMILIES, *tuned_families(_FAMILIES))}
)

DEFAULT_PROBE_PER_CLASS = 10


def weight_decay(network: str) -> float:
    """Returns the weight decay of the optimizer for a network, in whichever form."""
    return {"imagenet": 1e-4, "bottleneck": 2e-4}.get(networks.parse(network).family, 5e-4)


def default_family(spec: DatasetSpec, accelerator: bool) -> str:
    """Returns the name of the default family for a data set.

    Args:
      spec: The data set.
      accelerator: Whether the run will have a GPU.
    """
    own = {
        "digits": "digits",
        "fashion_mnist": "fashion_mnist",
        "folder": "folder",
        "webvisionmini": "webvision",
    }
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
      recipe: Name of the family; empty for the default of the data set and the device.
      network: Overrides the family's network; empty keeps it.
      num_steps: Overrides the family's length, in steps; 0 keeps it. A `cosine` schedule and the
        boundaries of a `step` schedule are scaled to the new length; restarts keep their cycles.
      accelerator: Whether the run will have a GPU.
      image_size: Overrides the side of the images in pixels, for a data set of files; 0 keeps it.

    Returns:
      The configuration.

    Raises:
      UserError: When a name is unknown, `num_steps` is negative, or the family does not accept the
        data set.
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
    if family.head is not None:
        family = features_of_files(family, spec.base)
    if family.images is not None and image_size:
        images = dataclasses.replace(family.images, size=image_size)
        family = folder_family(image_size) if name == "folder" else family
        family = dataclasses.replace(family, images=images)
    network = network or family.network
    _require_fitting(family, method, network)
    if family.head is not None:
        network = feature_sources.joined(feature_sources.parse(network))
    schedule = family.schedules.get(method, family.schedule)
    settings = family.settings_of(method)
    if spec.imbalance is not None and spec.noise is None:
        settings = dataclasses.replace(settings, **PURE_IMBALANCE.get(method, {}))
    if num_steps < 0:
        raise UserError(f"steps is {num_steps}: expected at least 1, or 0 for the recipe's length")
    if num_steps:
        unset: Mapping[str, Any] = dict.fromkeys(LENGTHS, 0)
        schedule = dataclasses.replace(schedule, **{**unset, "num_steps": num_steps})
    # A head has a weight decay of its own.
    decay = weight_decay(network) if family.head is None else OptimizerConfig.weight_decay
    config = Config(
        recipe=name,
        dataset=str(spec),
        method=method,
        network=network,
        seed=seed,
        batch_size=family.batch_sizes.get(method, family.batch_size),
        probe_per_class=DEFAULT_PROBE_PER_CLASS if chosen.uses_probe else 0,
        evaluations=family.evaluations,
        optimizer=OptimizerConfig(weight_decay=decay),
        schedule=schedule,
        augmentation=family.augmentation,
        method_settings=settings,
        images=family.images,
        head=family.head,
    )
    return override(config, chosen_settings(family, str(spec), method))


def _require_fitting(family: Family, method: str, network: str) -> None:
    """Refuses a method or network that trains a network where a head is trained, or vice versa."""
    if not family.takes(method):
        known = ", ".join(name for name in METHODS if family.takes(name))
        raise UserError(
            f"method {method!r} trains a network, not a head on features: choose {known}, or leave "
            "FEATURES out"
        )
    if family.head is None and network in feature_sources.BUILT_IN:
        raise UserError(
            f"network {network!r} gives features and is not trained itself: use "
            f"FEATURES={network}, or choose another NETWORK"
        )


def fit_to_classes(config: Config, num_classes: int, assignments: Sequence[str]) -> Config:
    """Fits the method's settings to the classes, where only the data tell how many there are.

    Args:
      config: A configuration.
      num_classes: C.
      assignments: The overrides that the user gave, "key=value" each; what they set is kept.

    Returns:
      The configuration; for a method with a dictionary, its capacity and batch are rounded down to
      multiples of C, but to no less than C.
    """
    if config.images is None:
        return config
    keys = (assignment.partition("=")[0].strip() for assignment in assignments)
    fixed = {key.removeprefix("method.") for key in keys if key.startswith("method.")}
    settings = config.method_settings.fit_to_classes(num_classes, fixed)
    return dataclasses.replace(config, method_settings=settings)


def fit_to_examples(
    config: Config, num_examples: int, *, keeps_batch: bool = False, keeps_length: bool = False
) -> Config:
    """Fits batch and length to the number of images, where only the data tell how many there are.

    Args:
      config: A configuration.
      num_examples: Number of training examples.
      keeps_batch: Whether the user has set the batch size.
      keeps_length: Whether the user has set the length.

    Returns:
      The configuration. In a family with `max_epochs`, a batch is at most half of the images, and
      the length at most that many epochs.
    """
    max_epochs = FAMILIES[config.recipe].max_epochs
    if max_epochs and not keeps_batch:
        batch_size = max(1, min(config.batch_size, num_examples // 2))
        config = dataclasses.replace(config, batch_size=batch_size)
    most = max_epochs * steps_per_epoch(config, num_examples)
    if keeps_length or not 0 < most < config.schedule.num_steps:
        return config
    schedule = dataclasses.replace(config.schedule, num_steps=most)
    return dataclasses.replace(config, schedule=schedule)


def recipe_of(config: Config) -> Config:
    """Returns the configuration that the recipe alone gives, without overrides of any kind."""
    return build_config(
        parse(config.dataset),
        config.method,
        seed=config.seed,
        recipe=config.recipe,
        network=config.network,
        image_size=config.images.size if config.images else 0,
    )


def changed_settings(config: Config, num_examples: int) -> list[str]:
    """Lists the settings, other than the length, that differ from the configuration's recipe."""
    recipe = fit_to_examples(recipe_of(config), num_examples)
    mine, plain = _flat(to_dict(config)), _flat(to_dict(recipe))
    keys = {*mine, *plain}.difference(LENGTH_KEYS)
    return sorted(key for key in keys if mine.get(key) != plain.get(key))


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in settings.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
