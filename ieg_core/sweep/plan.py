# SPDX-License-Identifier: Apache-2.0
"""Plans a sweep: checks the request, prepares the data, and records the trials.

Components, the command line and notebooks call `plan`. It imports no deep-learning framework.
"""

import functools
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.data.label_set import LabelSet, prepare_label_set, probe_note
from ieg_core.data.labels.given import GivenLabels
from ieg_core.data.labels.open import check_labels_file, open_given
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment import networks
from ieg_core.experiment.config import Config, ImagesConfig, to_dict
from ieg_core.experiment.dataset_spec import DatasetSpec, combine
from ieg_core.experiment.length import (
    evaluation_steps,
    nearest_cycle_ends,
    num_steps,
    steps_per_epoch,
)
from ieg_core.experiment.methods import METHODS, method_spec
from ieg_core.experiment.overrides import override, settable_keys
from ieg_core.host import files
from ieg_core.host.runtime import chosen_backend
from ieg_core.recipes import build
from ieg_core.recipes.features import FEATURES
from ieg_core.store import fingerprint, layout
from ieg_core.store.records import PlanRecord, TrialRecord
from ieg_core.sweep.request import MAX_TRIALS, SweepRequest


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep.

    Attributes:
      sweep: The sweep's name; the same trials have the same name.
      trials: Names of the trials, longest first.
      notes: What reading the data and planning the trials brought to light, one line each.
    """

    sweep: str
    trials: tuple[str, ...]
    notes: tuple[str, ...] = ()


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
        (
            spec,
            build.build_config(
                spec,
                method,
                seed=seed,
                recipe=FEATURES.name if request.features else request.recipe,
                network=request.features or request.network,
                num_steps=request.steps,
                accelerator=request.accelerator,
                image_size=_image_size(request.settings),
            ),
        )
        for spec in specs
        for method in dict.fromkeys(request.methods)
        for seed in dict.fromkeys(request.seeds)
    ]
    for setting in request.settings:
        if not any(_takes(config, setting) for _, config in plain):
            override(plain[0][1], [setting])  # raises the error that explains it
    return [
        (spec, override(config, [s for s in request.settings if _takes(config, s)]))
        for spec, config in plain
    ]


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


def plan(request: SweepRequest) -> Plan:
    """Validates a request, prepares its data and records its trials.

    1. Builds every trial's configuration from the request alone.
    2. Prepares each distinct label set once.
    3. Writes config.json for each new trial, and the sweep's plan.json.

    Planning is idempotent.

    Raises:
      UserError: When the request, its data or the results folder is invalid.
    """
    planned = configs(request)
    root = Path(request.results)
    layout.require_this_version(root)
    label_sets, notes = _prepare(request, planned)
    records = [
        _record(
            spec, build.fit_to_classes(config, label_set.num_classes, request.settings), label_set
        )
        for (spec, config), label_set in zip(planned, label_sets, strict=True)
    ]
    # Longest first: a long trial that started last would run alone at the end.
    records.sort(key=lambda record: -record.num_steps * METHODS[record.method].relative_cost)
    for record in records:
        folder = layout.trial_folder(root, record.trial)
        if not TrialRecord.exists(folder):
            record.write(folder)
    trials = tuple(record.trial for record in records)
    sweep = f"{request.dataset}-{fingerprint.short_digest(trials)}"
    _write_plan(layout.sweep_folder(root, sweep), sweep, request, trials)
    return Plan(sweep, trials, (*notes, *_cut_cycles(planned, label_sets)))


def _prepare(
    request: SweepRequest, planned: Sequence[tuple[DatasetSpec, Config]]
) -> tuple[list[LabelSet], tuple[str, ...]]:
    """Prepares the data of trials, each distinct label set once.

    Returns:
      A label set for each trial, and the distinct messages from reading and preparing the data.
    """
    data_dir, folder = Path(request.data_dir), layout.label_sets_folder(Path(request.results))
    with files.writable(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
    read = functools.cache(lambda base, images: open_source(base, data_dir, images))

    @functools.cache
    def given(spec: DatasetSpec, images: ImagesConfig | None) -> GivenLabels | None:
        return open_given(spec, read(spec.base, images), data_dir, request.labels)

    @functools.cache
    def prepare(spec: DatasetSpec, images: ImagesConfig | None, seed: int, probe: int) -> LabelSet:
        return prepare_label_set(
            spec,
            seed=seed,
            probe_per_class=probe,
            source=read(spec.base, images),
            label_sets_dir=folder,
            given=given(spec, images),
        )

    prepared = [prepare(s, c.images, c.seed, c.probe_per_class) for s, c in planned]
    sources = [read(spec.base, config.images) for spec, config in planned]
    notes = [line for source in sources for line in describe_notes(source.notes)]
    notes += filter(None, map(probe_note, prepared))
    return prepared, tuple(dict.fromkeys(notes))


def _cut_cycles(
    planned: Sequence[tuple[DatasetSpec, Config]], label_sets: Sequence[LabelSet]
) -> list[str]:
    """Names the lengths that end inside a cosine cycle, and the nearest that do not."""
    methods: dict[tuple[int, ...], dict[str, None]] = {}
    for (_, config), label_set in zip(planned, label_sets, strict=True):
        epoch_steps = steps_per_epoch(config, len(label_set.train_ids))
        steps = num_steps(config, epoch_steps)
        if nearest := nearest_cycle_ends(config, epoch_steps, steps):
            methods.setdefault((steps, *nearest), {})[config.method] = None
    return [
        f"{', '.join(names)}: {steps} steps end inside a cosine cycle, where the learning rate is "
        f"still high; STEPS={' or '.join(map(str, nearest))} ends with one"
        for (steps, *nearest), names in methods.items()
    ]


def _write_plan(folder: Path, sweep: str, request: SweepRequest, trials: Sequence[str]) -> None:
    old, _ = PlanRecord.look(folder)
    values = asdict(replace(request, results="", data_dir=""))
    plan = PlanRecord(
        sweep=sweep,
        command=request.command,
        request={key: value for key, value in values.items() if value != ""},
        trials=list(trials),
        created=old.created if old else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    plan.write(folder)


def _record(spec: DatasetSpec, config: Config, label_set: LabelSet) -> TrialRecord:
    """Builds a trial's record: everything that decides its outcome, and its provenance."""
    examples = len(label_set.train_ids)
    if config.batch_size > examples:
        raise UserError(
            f"{config.dataset} has {examples} training examples, too few for a batch of "
            f"{config.batch_size}: lower batch_size"
        )
    config.method_settings.check_classes(label_set.num_classes)
    epoch_steps = steps_per_epoch(config, examples)
    steps = num_steps(config, epoch_steps)
    outcome: dict[str, Any] = {
        "config": json.loads(json.dumps(to_dict(config))),
        "label_set_digest": label_set.digest,
        "code_version": fingerprint.code_version(),
        "backend": chosen_backend(),
        "precision": config.precision,
    }
    if source := networks.source_digest(config.network, config.pretrained):
        outcome["network_digest"] = source
    return TrialRecord(
        **outcome,
        trial=fingerprint.trial_name(config.dataset, config.method, config.seed, outcome),
        label_set=label_set.name,
        base=spec.base,
        dataset=config.dataset,
        method=config.method,
        seed=config.seed,
        network=config.network,
        recipe=config.recipe,
        num_steps=steps,
        image_shape=list(label_set.image_shape),
        num_classes=label_set.num_classes,
        recipe_steps=_recipe_steps(config, examples),
        changed_settings=build.changed_settings(config),
        num_evaluations=len(evaluation_steps(config, epoch_steps, steps)),
        num_test_examples=len(label_set.test_labels),
        noise_rate=label_set.noise_rate,
        true_flip_rate=label_set.true_flip_rate,
        clean_labels_used=len(label_set.probe_ids),
        versions={"python": platform.python_version(), **fingerprint.library_versions()},
        git_revision=_git_revision(),
    )


def _recipe_steps(config: Config, examples: int) -> int:
    plain = build.recipe_of(config)
    return num_steps(plain, steps_per_epoch(plain, examples))


def _git_revision() -> str:
    """Returns the revision of the checkout, or the one that the container image was built from.

    "+" marks uncommitted changes; "" means that the revision is unknown.
    """
    if image_revision := os.environ.get("IEG_REVISION"):
        return image_revision
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        answer = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
