# SPDX-License-Identifier: Apache-2.0
"""Plans a sweep: checks the request, prepares the data, and records the trials.

Components, the command line and notebooks call `plan`. It imports no deep-learning framework.
"""

import functools
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ieg_core.audit.findings import is_available
from ieg_core.audit.soft_labels import soft_labels
from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.data.label_set import (
    LabelSet,
    prepare_label_set,
    prepare_soft_label_set,
    probe_note,
)
from ieg_core.data.labels.given import GivenLabels
from ieg_core.data.labels.open import check_labels_file, open_given
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import LENGTHS, Config, ImagesConfig, network_digest, to_dict
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

LENGTH_KEYS = tuple(f"schedule.{name}" for name in LENGTHS)
_SMALLEST_PHOTO = 28


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep.

    Attributes:
      sweep: The sweep's name; the same trials have the same name.
      trials: Names of the trials, longest first.
      notes: What reading the data and planning brought to light, and what was chosen, one line
        each.
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
        (spec, _plain_config(request, spec, method, seed))
        for spec in specs
        for method in dict.fromkeys(request.methods)
        for seed in dict.fromkeys(request.seeds)
    ]
    for setting in request.settings:
        if not any(_takes(config, setting) for _, config in plain):
            override(plain[0][1], [setting])  # raises the error that explains it
    planned = [(spec, _overridden(request, config)) for spec, config in plain]
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


def _overridden(request: SweepRequest, config: Config) -> Config:
    return override(config, [s for s in request.settings if _takes(config, s)])


def _fitted(request: SweepRequest, config: Config, label_set: LabelSet) -> Config:
    """Fits a configuration to what only the data tell: the number of classes and of examples."""
    keys = {setting.partition("=")[0].strip() for setting in request.settings}
    fitted = build.fit_to_classes(config, label_set.num_classes, request.settings)
    return build.fit_to_examples(
        fitted,
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


def plan(request: SweepRequest) -> Plan:
    """Validates a request, prepares its data and records its trials.

    1. Builds every trial's configuration from the request alone.
    2. Prepares each distinct label set once.
    3. Writes config.json for each new trial, and the sweep's plan.json.

    Planning is idempotent.

    Raises:
      UserError: When the request, its data or the results folder is invalid.
    """
    (records,), notes = record_trials([request])
    # Longest first: a long trial that started last would run alone at the end.
    records.sort(key=lambda record: -record.num_steps * METHODS[record.method].relative_cost)
    trials = tuple(record.trial for record in records)
    sweep = sweep_name(request, trials)
    _write_plan(layout.sweep_folder(Path(request.results), sweep), sweep, request, trials)
    return Plan(sweep, trials, notes)


def sweep_name(request: SweepRequest, trials: Sequence[str]) -> str:
    """Names a sweep after its data set and the names of its trials."""
    return f"{request.dataset}-{fingerprint.short_digest(trials)}"


def record_trials(
    requests: Sequence[SweepRequest],
) -> tuple[list[list[TrialRecord]], tuple[str, ...]]:
    """Validates requests, prepares their data and writes config.json for each new trial.

    Args:
      requests: At least one; all with the same data directory, results root and label file.

    Returns:
      The records of the trials of each request, in the order of `configs`; and the notes of a
      `Plan`.

    Raises:
      UserError: As `plan`.
    """
    planned = [
        (number, spec, config)
        for number, request in enumerate(requests)
        for spec, config in configs(request)
    ]
    root = Path(requests[0].results)
    layout.require_this_version(root)
    label_sets, notes = _prepare(
        [(requests[number], spec, config) for number, spec, config in planned]
    )
    records: list[list[TrialRecord]] = [[] for _ in requests]
    configurations = []
    data_dir = os.path.abspath(requests[0].data_dir)
    for (number, spec, config), label_set in zip(planned, label_sets, strict=True):
        fitted = _fitted(requests[number], config, label_set)
        if (fitted.batch_size, fitted.schedule) != (config.batch_size, config.schedule):
            notes.append(_size_note(fitted, config, len(label_set.train_ids)))
        records[number].append(replace(_record(spec, fitted, label_set), data_dir=data_dir))
        configurations.append(fitted)
    notes += _cut_cycles(configurations, label_sets)
    notes += _feature_advice(requests[0], label_sets)
    written = (_write_record(root, record) for of_request in records for record in of_request)
    notes += filter(None, written)
    return records, tuple(dict.fromkeys(notes))


def _size_note(fitted: Config, config: Config, examples: int) -> str:
    changes = []
    if fitted.batch_size != config.batch_size:
        changes.append(f"batches of {fitted.batch_size} instead of {config.batch_size}")
    if fitted.schedule != config.schedule:
        steps, before = fitted.schedule.num_steps, config.schedule.num_steps
        epochs = steps // steps_per_epoch(fitted, examples)
        changes.append(f"{steps} steps ({epochs} epochs) instead of {before}")
    return (
        f"{examples} images are few: {', '.join(changes)}; SET=batch_size=… and STEPS choose others"
    )


def _feature_advice(request: SweepRequest, label_sets: Sequence[LabelSet]) -> list[str]:
    """Recommends features for photos where networks would be trained from zero on a CPU."""
    is_photo = any(
        each.spec.base in FEATURES.bases and min(each.image_shape[:2]) >= _SMALLEST_PHOTO
        for each in label_sets
    )
    if request.accelerator or request.features or request.network or not is_photo:
        return []
    advice = (
        "no GPU: for photos, features of a pre-trained network take minutes and give better "
        f"results than training from zero; try FEATURES={FEATURES.network} "
        f"METHODS=supervised,forward,retrain (ieg_core.fit: network={FEATURES.network!r})"
    )
    return [advice]


def _prepare(
    planned: Sequence[tuple[SweepRequest, DatasetSpec, Config]],
) -> tuple[list[LabelSet], list[str]]:
    """Prepares the data of trials, each distinct label set once.

    Returns:
      A label set for each trial, and the distinct messages from reading and preparing the data.
    """
    first = planned[0][0]
    root, data_dir = Path(first.results), Path(first.data_dir)
    folder = layout.label_sets_folder(root)
    with files.writable(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
    read = functools.cache(lambda base, images: open_source(base, data_dir, images))

    @functools.cache
    def given(spec: DatasetSpec, images: ImagesConfig | None) -> GivenLabels | None:
        return open_given(spec, read(spec.base, images), data_dir, first.labels)

    @functools.cache
    def prepare(
        spec: DatasetSpec, images: ImagesConfig | None, seed: int, probe: int, validation: float
    ) -> LabelSet:
        return prepare_label_set(
            spec,
            seed=seed,
            probe_per_class=probe,
            source=read(spec.base, images),
            label_sets_dir=folder,
            given=given(spec, images),
            validation_fraction=validation,
        )

    @functools.cache
    def teach(request: SweepRequest, spec: DatasetSpec, seed: int, method: str) -> LabelSet:
        """Prepares the labels that the same request's trial of another method believes in."""
        config = _overridden(request, _plain_config(request, spec, method, seed))
        share = config.validation_fraction
        taught = prepare(spec, config.images, seed, config.probe_per_class, share)
        teacher = _record(spec, _fitted(request, config, taught), taught).trial
        place = layout.trial_folder(root, teacher)
        if not (layout.is_finished(root, teacher) and is_available(place)):
            settings = tuple(s for s in request.settings if _takes(config, s))
            command = replace(request, methods=(method,), settings=settings).command
            raise UserError(
                f"method.teacher={method}: {root} has no finished run {teacher} to learn from: "
                f"run it first ({command})"
            )
        return prepare_soft_label_set(
            taught,
            soft_labels(place, data_dir)[1],
            teacher=teacher,
            source=read(spec.base, config.images),
            label_sets_dir=folder,
        )

    prepared = [
        teach(request, spec, config.seed, method)
        if (method := config.method_settings.taught_by)
        else prepare(
            spec, config.images, config.seed, config.probe_per_class, config.validation_fraction
        )
        for request, spec, config in planned
    ]
    sources = [read(spec.base, config.images) for _, spec, config in planned]
    notes = [line for source in sources for line in describe_notes(source.notes)]
    notes += [
        f"{each.name}: labels are the posterior of {each.manifest.soft_labels_of}"
        for each in prepared
        if each.manifest and each.manifest.soft_labels_of
    ]
    return prepared, [*notes, *filter(None, map(probe_note, prepared))]


def _write_record(root: Path, record: TrialRecord) -> str:
    """Writes a trial's record unless it is there; returns a message if it was damaged, or ""."""
    folder = layout.trial_folder(root, record.trial)
    planned, problem = TrialRecord.look(folder)
    if planned and fingerprint.is_named(planned, record.trial):
        return ""
    path = TrialRecord.path(folder)
    if path.is_dir():
        return f"{path} is a folder: remove it and run again"  # until then, this trial fails
    record.write(folder)
    if not planned and not problem:
        return ""
    return f"{path} was damaged or edited; it has the planned settings again"


def _cut_cycles(configurations: Sequence[Config], label_sets: Sequence[LabelSet]) -> list[str]:
    """Names the lengths that end inside a cosine cycle, and the nearest that do not."""
    methods: dict[tuple[int, ...], dict[str, None]] = {}
    for config, label_set in zip(configurations, label_sets, strict=True):
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
    record = TrialRecord(
        trial="",
        config=json.loads(json.dumps(to_dict(config))),
        label_set_digest=label_set.digest,
        code_version=fingerprint.code_version(),
        backend=chosen_backend(),
        precision=config.precision,
        network_digest=network_digest(config),
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
        changed_settings=build.changed_settings(config, examples),
        num_evaluations=len(evaluation_steps(config, epoch_steps, steps)),
        num_test_examples=len(label_set.test_labels),
        noise_rate=label_set.noise_rate,
        true_flip_rate=label_set.true_flip_rate,
        clean_labels_used=len(label_set.probe_ids),
        versions=fingerprint.environment_versions(),
        git_revision=_git_revision(),
    )
    return replace(record, trial=fingerprint.trial_name(record))


def _recipe_steps(config: Config, examples: int) -> int:
    plain = build.fit_to_examples(build.recipe_of(config), examples)
    return num_steps(plain, steps_per_epoch(plain, examples))


def _git_revision() -> str:
    """Returns the revision of the checkout, or the one that the container image was built from.

    "+" marks uncommitted changes; "" means that the revision is unknown.
    """
    if image_revision := os.environ.get("IEG_REVISION"):
        return image_revision
    checkout = Path(__file__).parents[2]
    # Whoever runs this file trusts its checkout, even if it is another user's.
    git = ["git", "-C", str(checkout), "-c", f"safe.directory={checkout}"]
    command = [*git, "describe", "--always", "--dirty=+"]
    try:
        answer = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
