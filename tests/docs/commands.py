# SPDX-License-Identifier: Apache-2.0
"""The shell commands that the documents tell people to give."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?:sh|shell|bash|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
OURS = ("make", ".venv/bin/ieg", "ieg", ".venv/bin/python", "python")


def pages() -> list[Path]:
    """Returns the README and every page in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Lists the commands of ours in a page's shell blocks, one each, comments left out."""
    found = []
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*$", "", line.strip().removeprefix("$ "))
            if command.split(" ")[0] in OURS:
                found.append(re.sub(r"\s+", " ", command))
    return found
