# SPDX-License-Identifier: Apache-2.0
"""Records of a results root with plausible values where a test does not care."""

import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

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
