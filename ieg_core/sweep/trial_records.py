# SPDX-License-Identifier: Apache-2.0
"""The record of a planned trial: everything that decides its outcome, and its provenance."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

from ieg_core.data.label_set import LabelSet
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config, network_digest, to_dict
from ieg_core.experiment.dataset_spec import DatasetSpec
from ieg_core.experiment.length import evaluation_steps, num_steps, steps_per_epoch
from ieg_core.host.runtime import chosen_backend
from ieg_core.recipes import build
from ieg_core.store import fingerprint, layout
from ieg_core.store.records import TrialRecord


def record_of(spec: DatasetSpec, config: Config, label_set: LabelSet) -> TrialRecord:
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
        git_revision=git_revision(),
    )
    return replace(record, trial=fingerprint.trial_name(record))


def _recipe_steps(config: Config, examples: int) -> int:
    plain = build.fit_to_examples(build.recipe_of(config), examples)
    return num_steps(plain, steps_per_epoch(plain, examples))


def git_revision() -> str:
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


def write_record(root: Path, record: TrialRecord) -> str:
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
