# SPDX-License-Identifier: Apache-2.0
"""Writes docs/settings.md, the reference of every setting, from the settings' dataclasses.

    .venv/bin/python scripts/write_settings.py

A test compares the file with this script's output.
"""

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ieg_core.experiment import config
from ieg_core.experiment.config import (
    AugmentationConfig,
    Config,
    HeadConfig,
    ImagesConfig,
    OptimizerConfig,
    ScheduleConfig,
    to_dict,
)
from ieg_core.experiment.methods import METHODS
from ieg_core.recipes import build
from ieg_core.sweep.request import attributes

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
SECTIONS = {
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "augmentation": AugmentationConfig,
    "images": ImagesConfig,
    "head": HeadConfig,
}
CHOSEN_ELSEWHERE = ("recipe", "dataset", "method", "network", "seed", "method_settings")
HEAD = """# Settings

Every setting that a recipe fixes and that `SET=` (or `ieg train --set`) can change, several
separated by spaces: `make sweep SET="optimizer.learning_rate=0.05 batch_size=50"`. Methods ignore
settings that are not theirs; an unknown name, a wrong type or a value out of range is refused in
one line. `scripts/write_settings.py` generates this page from the dataclasses in
`ieg_core/experiment/`.
"""


def rows(owner: type, prefix: str, skip: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields a table line for each field of a dataclass.

    Raises:
      ValueError: When the docstring does not describe a field.
    """
    descriptions = attributes(owner)
    kinds = typing.get_type_hints(owner)
    for field in dataclasses.fields(owner):
        if field.name in skip:
            continue
        if field.name not in descriptions:
            raise ValueError(f"the docstring of {owner.__name__} does not describe {field.name}")
        annotation = str(kinds[field.name])
        several = "names" if "str" in annotation else "numbers"
        kind = several if "tuple" in annotation else kinds[field.name].__name__
        value = f"`{_text(field.default)}`"
        description = with_values(descriptions[field.name]).replace("|", "\\|")
        yield f"| `{prefix}{field.name}` | {kind} | {value} | {description} |"


def with_values(text: str) -> str:
    """Replaces the names of constants of `ieg_core.experiment.config` with their values."""

    def value(match: re.Match[str]) -> str:
        value = getattr(config, match[0], match[0])
        return ", ".join(f"`{each}`" for each in value) if isinstance(value, tuple) else str(value)

    return re.sub(r"\b[A-Z]+(?:_[A-Z]+)*\b", value, text)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def table(lines: Iterator[str]) -> str:
    """Adds the header of a table of settings."""
    head = "| setting | type | default | what it is |\n|---|---|---|---|\n"
    return head + "\n".join(lines) + "\n"


def families() -> str:
    """Lists the settings in which each recipe family differs from the defaults."""
    lines = ["| recipe | for | network | batch | schedule | augmentation | fsr | ieg |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for family in build.FAMILIES.values():
        cells = [
            f"`{family.name}`",
            family.data,
            f"`{family.network}`",
            str(family.batch_size),
            *(_changed(part) for part in (family.schedule, family.augmentation)),
            *(_changed(family.settings_of(method)) for method in ("fsr", "ieg")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _changed(section: Any) -> str:
    """Lists the values of a section that differ from the defaults."""
    plain = {f.name: f.default for f in dataclasses.fields(section)}
    values = {k: v for k, v in to_dict(section).items() if v != plain[k] or k == "name"}
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items()) or "defaults"


def render() -> str:
    """Renders the whole page."""
    parts = [HEAD]
    skip = (*CHOSEN_ELSEWHERE, *SECTIONS)
    parts.append("## Every run\n\n" + table(rows(Config, "", skip)))
    for prefix, owner in SECTIONS.items():
        summary = (owner.__doc__ or "").strip().splitlines()[0]
        parts.append(f"## `{prefix}`\n\n{summary}\n\n" + table(rows(owner, f"{prefix}.")))
    by_settings: dict[Any, list[str]] = {}
    for name, facts in METHODS.items():
        by_settings.setdefault(facts.settings, []).append(name)
    for owner, names in by_settings.items():
        title = ", ".join(f"`{name}`" for name in names)
        summary = (owner.__doc__ or "").strip().splitlines()[0]
        parts.append(f"## `method` of {title}\n\n{summary}\n\n" + table(rows(owner, "method.")))
    parts.append(
        "## What the recipes set\n\nSettings with their default value are omitted. The weight "
        "decay depends on the network\n(`ieg_core/recipes/build.py`).\n\n" + families()
    )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
