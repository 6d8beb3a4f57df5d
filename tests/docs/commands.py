# SPDX-License-Identifier: Apache-2.0
"""The shell commands that the documents tell people to give."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
SHELLS = ("", "sh", "shell", "bash", "console")
OURS = ("make", ".venv/bin/ieg", "ieg", ".venv/bin/python", "python")


def pages() -> list[Path]:
    """Returns the README and every page in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Lists the commands of ours in a page's shell blocks, one each, comments left out."""
    found = []
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        lines = block.replace("\\\n", " ").splitlines() if language in SHELLS else []
        for line in lines:
            command = re.sub(r"\s+#.*$", "", line.strip().removeprefix("$ "))
            if command.split(" ")[0] in OURS:
                found.append(re.sub(r"\s+", " ", command))
    return found


def mentions(page: Path) -> list[str]:
    """Lists the commands of ours in a page's running text; they may be incomplete."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = [re.sub(r"\s+", " ", each) for each in INLINE.findall(text)]
    return [each for each in found if each.split(" ")[0] in OURS and " " in each]
