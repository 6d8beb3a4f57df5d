# SPDX-License-Identifier: Apache-2.0
"""Prepares the label sets of a sweep's trials, each once."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ieg_core.audit.findings import is_available
from ieg_core.audit.soft_labels import soft_labels
from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.data.label_set import LabelSet, prepare_label_set, prepare_soft_label_set, probe_note
from ieg_core.data.labels.given import GivenLabels
from ieg_core.data.labels.open import open_given
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config, ImagesConfig
from ieg_core.experiment.dataset_spec import DatasetSpec
from ieg_core.host import files
from ieg_core.store import layout
from ieg_core.sweep.configurations import configuration, fitted, taken
from ieg_core.sweep.request import SweepRequest
from ieg_core.sweep.trial_records import record_of


def prepare(
    planned: Sequence[tuple[SweepRequest, DatasetSpec, Config]],
) -> tuple[list[LabelSet], list[str]]:
    """Prepares the data of trials, each distinct label set once.

    Args:
      planned: For each trial the request that plans its teacher, if it has one, its data set and
        its configuration; the requests agree in the data directory, results root and label file.

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
    def prepare_one(
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
        """Prepares the labels that the request's trial of another method believes in."""
        config = configuration(request, spec, method, seed)
        share = config.validation_fraction
        taught = prepare_one(spec, config.images, seed, config.probe_per_class, share)
        teacher = record_of(spec, fitted(request, config, taught), taught).trial
        place = layout.trial_folder(root, teacher)
        if not (layout.is_finished(root, teacher) and is_available(place)):
            settings = taken(request, config)
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
        else prepare_one(
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
