# SPDX-License-Identifier: Apache-2.0
"""What decides a cell's outcome beside its seed, and how cells that differ in it are named."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ieg_core.report.cells import Cell

MOST_NAMED = 3
"""Differences up to which they themselves are a row's name; the sweep's letter is it beyond."""
DIGITS = 8
# Rows are told apart by their numbers of steps, however these were asked for.
LENGTHS = ("schedule.num_steps", "schedule.num_epochs")


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns a resolved configuration as texts, keys by dots, spelled as `--set` takes them.

    The data set, the method and the seed are left out: they are a cell's place in a sweep.
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
    """Returns what decides a cell's outcome beside its configuration and its seed.

    Args:
      record: The cell's config.json.
      manifest: Its overlay's manifest.json.

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


def tell_apart(
    cells: Sequence["Cell"], family: Mapping[str, str], letters: Mapping[str, str]
) -> list["Cell"]:
    """Names in each row what its cell has different from others of its data set and method.

    Network and number of steps are columns of a row, and named by `summary.group_rows`.

    Args:
      cells: Cells of several sweeps.
      family: The data-set family of each cell, by the cell's name.
      letters: The sweep of each cell, by the cell's name.

    Returns:
      The cells in their order, with "variant" in the rows of those that differ: "key=value, …", or
      the letter of the first sweep that has it where too much differs.
    """
    own = {cell.row["cell"]: flat_settings(cell.settings) | dict(cell.surroundings)
           for cell in cells}  # fmt: skip
    together: dict[tuple[object, ...], list[str]] = {}
    for cell in cells:
        key = tuple(cell.row[name] for name in ("dataset", "method", "network", "steps"))
        together.setdefault(key, []).append(cell.row["cell"])
    differing: dict[tuple[str, object], dict[str, None]] = {}
    for (_, method, *_), names in together.items():
        keys = dict.fromkeys(key for name in names for key in own[name] if key not in LENGTHS)
        varied = differing.setdefault((family[names[0]], method), {})
        varied |= {key: None for key in keys if len({own[name].get(key) for name in names}) > 1}
    first: dict[tuple[object, ...], str] = {}
    told = []
    for cell in cells:
        name, method = cell.row["cell"], cell.row["method"]
        keys = differing[family[name], method]
        values = {key: own[name].get(key, "-") for key in keys}
        letter = first.setdefault((family[name], method, *values.items()), letters[name])
        text = ", ".join(f"{key}={value}" for key, value in values.items())
        variant = text if len(keys) <= MOST_NAMED else letter
        told.append(replace(cell, row=cell.row | {"variant": variant}) if variant else cell)
    return told
