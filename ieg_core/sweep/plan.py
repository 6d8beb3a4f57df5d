# SPDX-License-Identifier: Apache-2.0
"""Plans a sweep: checks the request, prepares the data, and records the trials.

Components, the command line and notebooks call `plan`. It imports no deep-learning framework.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ieg_core.experiment.methods import METHODS
from ieg_core.store import fingerprint, layout
from ieg_core.store.records import PlanRecord, TrialRecord
from ieg_core.sweep import label_sets
from ieg_core.sweep.configurations import configs, fitted
from ieg_core.sweep.planning_notes import cut_cycles, feature_advice, late_starts, size_note
from ieg_core.sweep.request import SweepRequest
from ieg_core.sweep.trial_records import record_of, write_record


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
    requests: Sequence[SweepRequest], teachers: Sequence[SweepRequest] | None = None
) -> tuple[list[list[TrialRecord]], tuple[str, ...]]:
    """Validates requests, prepares their data and writes config.json for each new trial.

    Args:
      requests: At least one; all with the same data directory, results root and label file.
      teachers: For each request, the one whose settings the teachers of its trials have; None for
        the request itself.

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
    teachers = requests if teachers is None else teachers
    prepared, notes = label_sets.prepare(
        [(teachers[number], spec, config) for number, spec, config in planned]
    )
    records: list[list[TrialRecord]] = [[] for _ in requests]
    fits = []
    data_dir = os.path.abspath(requests[0].data_dir)
    for (number, spec, config), label_set in zip(planned, prepared, strict=True):
        fit = fitted(requests[number], config, label_set)
        if (fit.batch_size, fit.schedule) != (config.batch_size, config.schedule):
            notes.append(size_note(fit, config, len(label_set.train_ids)))
        records[number].append(replace(record_of(spec, fit, label_set), data_dir=data_dir))
        fits.append(fit)
    notes += cut_cycles(fits, prepared)
    notes += late_starts(fits, prepared)
    notes += feature_advice(requests[0], prepared)
    written = (write_record(root, record) for of_request in records for record in of_request)
    notes += filter(None, written)
    return records, tuple(dict.fromkeys(notes))


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
