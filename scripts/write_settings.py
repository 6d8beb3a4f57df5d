# SPDX-License-Identifier: Apache-2.0
"""Writes docs/settings.md, the reference of every setting, from the dataclasses that hold them.

    .venv/bin/python scripts/write_settings.py

A test compares the file with what this makes, so the two cannot part.
"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ieg_core.experiment import config
from ieg_core.experiment.config import (
    AugmentationConfig,
    Config,
    ImagesConfig,
    OptimizerConfig,
    ScheduleConfig,
    to_dict,
)
from ieg_core.experiment.methods import METHODS
from ieg_core.recipes import build

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
SECTIONS = {
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "augmentation": AugmentationConfig,
    "images": ImagesConfig,
}
CHOSEN_ELSEWHERE = ("recipe", "dataset", "method", "network", "seed", "method_settings")
HEAD = """# Settings

Every setting that a recipe fixes and `SET=` (or `ieg train --set`) changes, written by
`scripts/write_settings.py` from the dataclasses in `ieg_core/experiment/config.py` and
`ieg_core/experiment/methods.py`. Several at once: `make sweep SET="optimizer.learning_rate=0.05
batch_size=50"`. Methods ignore settings that are not theirs; an unknown name, a wrong type or a
value out of range is refused in one line.
"""


def attributes(owner: type) -> Mapping[str, str]:
    """Reads what a dataclass's docstring says of each of its fields."""
    _, _, text = (inspect.getdoc(owner) or "").partition("Attributes:")
    found = re.findall(r"^ {2}(\w+): (.*(?:\n {4}.*)*)", text, re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in found}


def rows(owner: type, prefix: str, skip: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields a table line for each field of a dataclass.

    Raises:
      ValueError: A field that its docstring says nothing of.
    """
    said = attributes(owner)
    kinds = typing.get_type_hints(owner)
    for field in dataclasses.fields(owner):
        if field.name in skip:
            continue
        if field.name not in said:
            raise ValueError(f"{owner.__name__} says nothing of {field.name} in its docstring")
        annotation = str(kinds[field.name])
        several = "names" if "str" in annotation else "numbers"
        kind = several if "tuple" in annotation else kinds[field.name].__name__
        value = f"`{_text(field.default)}`"
        yield f"| `{prefix}{field.name}` | {kind} | {value} | {_cell(spelt(said[field.name]))} |"


def spelt(text: str) -> str:
    """Puts the value of a constant of `ieg_core.experiment.config` in the place of its name."""

    def value(match: re.Match[str]) -> str:
        found = getattr(config, match[0], match[0])
        return ", ".join(f"`{each}`" for each in found) if isinstance(found, tuple) else str(found)

    return re.sub(r"\b[A-Z]+(?:_[A-Z]+)*\b", value, text)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def table(lines: Iterator[str]) -> str:
    """Puts lines under the head of a table of settings."""
    head = "| setting | type | default | what it is |\n|---|---|---|---|\n"
    return head + "\n".join(lines) + "\n"


def families() -> str:
    """Lists what each recipe family sets otherwise than the defaults above."""
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
    """Lists a section's values, those left out that are as by default."""
    plain = {f.name: f.default for f in dataclasses.fields(section)}
    values = {k: v for k, v in to_dict(section).items() if v != plain[k] or k == "name"}
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items()) or "defaults"


def render() -> str:
    """Makes the whole page."""
    parts = [HEAD]
    skip = (*CHOSEN_ELSEWHERE, *SECTIONS)
    parts.append("## Of every run\n\n" + table(rows(Config, "", skip)))
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
        "## What the recipes set\n\nDefaults are left out. The weight decay depends on the network "
        "(`ieg_core/recipes/build.py`).\n\n" + families()
    )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
