# SPDX-License-Identifier: Apache-2.0
"""Records of a results root with plausible values where a test does not care."""

import json
import typing
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np

from ieg_core.host.files import write_bytes_atomic
from ieg_core.store import arrays, layout, leases
from ieg_core.store.model_file import ModelFacts, write_facts
from ieg_core.store.record import Record
from ieg_core.store.records import (
    AuditRecord,
    CurvesRecord,
    FailureRecord,
    ManifestRecord,
    PlanRecord,
    ProgressRecord,
    ResultRecord,
    TrainingRecord,
    TrialRecord,
)
from ieg_core.store.seal import DIGEST, seal
from ieg_core.training.checkpoint import Progress, save_checkpoint

VALUES = {bool: True, int: 1, float: 0.5, str: "some", Sequence: [], Mapping: {}}

SomeRecord = typing.TypeVar("SomeRecord", bound=Record)


def example(kind: type[SomeRecord], **values: Any) -> SomeRecord:
    """Makes a record with a value for every field that must have one."""
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        if field.default is MISSING and field.name not in values:
            hint = hints[field.name]
            optional = type(None) in typing.get_args(hint)
            values[field.name] = None if optional else VALUES[typing.get_origin(hint) or hint]
    return kind(**values)


KINDS: dict[str, type[Record]] = {
    kind.NAME: kind
    for kind in (
        AuditRecord,
        CurvesRecord,
        FailureRecord,
        ManifestRecord,
        PlanRecord,
        ProgressRecord,
        ResultRecord,
        TrainingRecord,
        TrialRecord,
    )
}


def complete(name: str, **values: Any) -> dict[str, Any]:
    """Returns what a whole file of a name holds, such as "result.json", with some values of it."""
    kind = KINDS[name]
    known = {field.name for field in fields(kind)}
    return example(kind, **{k: v for k, v in values.items() if k in known}).to_value() | values


def put(path: Path, **values: Any) -> None:
    """Writes a whole file of a results root, with some values of it."""
    name = "audit/summary.json" if path.name == "summary.json" else path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    put_json(path, complete(name, **{"trial": path.parent.name, **values}))


def put_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a file of a results root with any content, and the digest of that content."""
    sealed = seal({key: each for key, each in value.items() if key != DIGEST})
    path.write_text(json.dumps(sealed), encoding="utf-8")


def finish(root: Path, record: TrialRecord, accuracy: float) -> None:
    """Writes what a finished trial leaves behind."""
    folder = layout.trial_folder(root, record.trial)
    rows = [{"step": 10, "accuracy": accuracy, "accuracy_ema": accuracy, "loss": 1.0}]
    curves = {"training": [{"step": 10, "epoch": 0.1, "loss": 2.0}], "evaluations": rows}
    with leases.owned(folder) as lease:
        state = {"ema": [np.arange(6.0)], "step": np.array(10)}
        save_checkpoint(lease, state, Progress(record.trial, 10, 1, 1, 1.0, curves))
    example(ProgressRecord, step=10, num_steps=10).write(folder)
    CurvesRecord(**curves).write(folder)
    training = example(TrainingRecord, steps=10, device="CPU", threads=1)
    training.write(folder)
    known = vars(training) | vars(record)
    names = {each for each in ResultRecord.__dataclass_fields__ if each in known}
    example(
        ResultRecord,
        **{name: known[name] for name in names},
        accuracy_ema_last=accuracy,
        run_directory=layout.relative_trial(record.trial),
    ).write(folder)
    matrix = {"confusion_ema_last": np.eye(10, dtype=np.int64)}
    write_bytes_atomic(folder / layout.MATRICES, arrays.encode(matrix))
    with zipfile.ZipFile(folder / layout.MODEL, "w") as archive:
        archive.writestr("config.json", json.dumps({"a": 1}))
    write_facts(folder / layout.MODEL, ModelFacts(("a", "b"), (8, 8, 1)))
