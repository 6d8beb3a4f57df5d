# SPDX-License-Identifier: Apache-2.0
"""What decides a trial's outcome beside its seed, and how trials that differ in it are named."""

import json
from collections.abc import Mapping
from typing import Any

DIGITS = 8


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns a resolved configuration as texts, keys by dots, spelled as `--set` takes them.

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
    """Returns what decides a trial's outcome beside its configuration and its seed.

    Args:
      record: The trial's config.json.
      manifest: Its label set's manifest.json.

    Returns:
      Texts for people; without what is not known.
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
