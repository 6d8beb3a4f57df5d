# SPDX-License-Identifier: Apache-2.0
"""The configurations of a request's trials, and their fit to the data."""

from collections.abc import Sequence

from ieg_core.data.label_set import LabelSet
from ieg_core.data.labels.open import check_labels_file
from ieg_core.errors import UserError
from ieg_core.experiment.config import LENGTH_KEYS, Config
from ieg_core.experiment.dataset_spec import DatasetSpec, combine
from ieg_core.experiment.methods import method_spec
from ieg_core.experiment.overrides import override, settable_keys
from ieg_core.recipes import build
from ieg_core.recipes.features import FEATURES
from ieg_core.sweep.request import MAX_TRIALS, SweepRequest


def configs(request: SweepRequest) -> list[tuple[DatasetSpec, Config]]:
    """Returns each trial's data set and configuration, without reading data.

    Raises:
      UserError: When a name is unknown, a spec, ratio or override is invalid, or there are more
        than `MAX_TRIALS` trials.
    """
    specs = combine(request.dataset, request.noise_ratios or None)
    check_labels_file(specs[0], request.labels)
    if len(specs) * len(request.methods) * len(request.seeds) > MAX_TRIALS:
        raise UserError(
            f"{len(specs)} data sets × {len(request.methods)} methods × {len(request.seeds)} seeds "
            f"are more than {MAX_TRIALS} trials: split the sweep"
        )
    plain = [
        (spec, _plain_config(request, spec, method, seed))
        for spec in specs
        for method in dict.fromkeys(request.methods)
        for seed in dict.fromkeys(request.seeds)
    ]
    for setting in request.settings:
        if not any(_takes(config, setting) for _, config in plain):
            override(plain[0][1], [setting])  # raises the error that explains it
    planned = [(spec, override(config, taken(request, config))) for spec, config in plain]
    for _, config in planned:
        settings = config.method_settings
        if method_spec(config.method).needs_teacher and not (config.head or settings.taught_by):
            raise UserError(
                f"method {config.method!r} trains a head on features, or a network on what a "
                f"finished run believes: name the features, for example FEATURES={FEATURES.network}"
                ", or the method of that run, for example SET=method.teacher=ieg"
            )
    return planned


def _plain_config(request: SweepRequest, spec: DatasetSpec, method: str, seed: int) -> Config:
    """Returns a trial's configuration without the request's overrides."""
    return build.build_config(
        spec,
        method,
        seed=seed,
        recipe=FEATURES.name if request.features else request.recipe,
        network=request.features or request.network,
        num_steps=request.steps,
        accelerator=request.accelerator,
        image_size=_image_size(request.settings),
    )


def configuration(request: SweepRequest, spec: DatasetSpec, method: str, seed: int) -> Config:
    """Returns a trial's configuration, also of a method that the request does not name.

    Args:
      request: The sweep.
      spec: The data set.
      method: Name of the method.
      seed: The trial's seed.
    """
    plain = _plain_config(request, spec, method, seed)
    return override(plain, taken(request, plain))


def taken(request: SweepRequest, config: Config) -> tuple[str, ...]:
    """Returns the request's settings that a trial of this configuration uses."""
    return tuple(setting for setting in request.settings if _takes(config, setting))


def fitted(request: SweepRequest, config: Config, label_set: LabelSet) -> Config:
    """Fits a configuration to what only the data tell: the number of classes and of examples."""
    keys = {setting.partition("=")[0].strip() for setting in request.settings}
    known = build.fit_to_classes(config, label_set.num_classes, request.settings)
    return build.fit_to_examples(
        known,
        len(label_set.train_ids),
        keeps_batch="batch_size" in keys,
        keeps_length=bool(request.steps) or not keys.isdisjoint(LENGTH_KEYS),
    )


def _image_size(settings: Sequence[str]) -> int:
    """Returns the value of images.size, which decides network and views; 0 if it is not set."""
    text = next((s for s in settings if s.partition("=")[0].strip() == "images.size"), "=0")
    try:
        return max(0, int(text.partition("=")[2]))
    except ValueError:
        return 0  # `override` raises the error


def _takes(config: Config, setting: str) -> bool:
    """Returns whether a trial uses a setting: methods ignore settings that are not theirs."""
    key = setting.partition("=")[0].strip()
    if key == "probe_per_class":
        return method_spec(config.method).uses_probe
    return key in settable_keys(config)
