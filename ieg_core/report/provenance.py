# SPDX-License-Identifier: Apache-2.0
"""Everything but the seed that determines a trial's outcome, as text."""

import json
from collections.abc import Mapping
from typing import Any

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


def surroundings(record: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Returns what determines a trial's outcome besides its configuration and its seed.

    Args:
      record: The trial's config.json.
      manifest: Its label set's manifest.json.

    Returns:
      Readable texts by name; what is unknown is left out.
    """
    labels = manifest.get("labels_file")
    labels = labels if isinstance(labels, dict) else {}
    known = {
        "data": str(manifest.get("base_digest") or "")[:DIGITS],
        "labels": f"{labels.get('name')} {str(labels.get('sha256'))[:DIGITS]}" if labels else "",
        "network's source": str(record.get("network_digest") or "")[:DIGITS],
        "backend": str(record.get("backend") or ""),
        "code": str(record.get("code_version") or ""),
    }
    return {key: text for key, text in known.items() if text}
