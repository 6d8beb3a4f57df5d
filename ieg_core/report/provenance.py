# SPDX-License-Identifier: Apache-2.0
"""Everything but the seed that determines a trial's outcome, as text."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ieg_core.store.records import ManifestRecord, TrialRecord

DIGITS = 8


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flattens a resolved configuration to the dotted keys that `--set` takes, and text values.

    The data set, the method and the seed are left out: they are a trial's place in a sweep.
    """
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            section = "method" if key == "method_settings" else key
            flat |= flat_settings(value, f"{prefix}{section}.")
        elif prefix or key not in ("dataset", "method", "seed"):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            flat[f"{prefix}{key}"] = text or '""'
    return flat


def surroundings(record: TrialRecord | None, manifest: ManifestRecord | None) -> dict[str, str]:
    """Returns what determines a trial's outcome besides its configuration and its seed.

    Args:
      record: What the trial was planned to be; None if that cannot be read.
      manifest: Its label set's manifest; None if that cannot be read.

    Returns:
      Readable texts by name; what is unknown is left out.
    """
    known = {}
    if manifest:
        file = manifest.labels_file or {}
        known["data"] = manifest.base_digest[:DIGITS]
        known["teacher"] = manifest.soft_labels_of or ""
        known["labels"] = f"{file.get('name', '')} {file.get('sha256', '')[:DIGITS]}".strip()
    if record:
        known["network's source"] = record.network_digest[:DIGITS]
        known |= {"backend": record.backend, "code": record.code_version}
    return {key: text for key, text in known.items() if text}


def environment(result: Mapping[str, Any]) -> dict[str, str]:
    """Returns where and with what a trial was computed.

    Args:
      result: A row of results.json, or the content of result.json.

    Returns:
      Readable texts by name; what is unknown is left out.
    """
    named = {
        "device": result.get("device"),
        "driver": result.get("driver"),
        "processor": result.get("processor"),
        "threads": result.get("threads"),
        "git revision": result.get("git_revision"),
    }
    versions = result.get("versions") or {}
    named |= {f"version of {name}": version for name, version in versions.items()}
    return {name: str(value) for name, value in named.items() if value not in (None, "")}


def differences(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Describes in a line each in what the environments of results differ; empty if in nothing."""
    values: dict[str, Counter[str]] = {}
    for result in results:
        for name, text in environment(result).items():
            values.setdefault(name, Counter())[text] += 1
    return [
        f"{name}: {', '.join(f'{text} ({count})' for text, count in found.most_common())}"
        for name, found in values.items()
        if len(found) > 1
    ]
