# SPDX-License-Identifier: Apache-2.0
"""The shell commands that the documents tell people to give, and how to give them."""

import glob
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
SHELLS = ("", "sh", "shell", "bash", "console")
OURS = ("make", ".venv/bin/ieg", "ieg", ".venv/bin/python", "python")


def pages() -> list[Path]:
    """Returns the README, the page for contributors and every page in docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


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


def link_program(folder: Path) -> Path:
    """Puts the working tree's program into an empty folder, where results do no harm."""
    for name in ("Makefile", "ieg_core", "components", "pipelines", "schedules.yaml", "docs"):
        source = ROOT / name
        (folder / name).symlink_to(source, target_is_directory=source.is_dir())
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def run_example(page: Path, number: int, folder: Path) -> list[str]:
    """Runs a page's Python example, counted from 0, in a folder; returns the lines it printed."""
    blocks = [
        block for language, block in FENCE.findall(page.read_text("utf-8")) if language == "python"
    ]
    (folder / "example.py").write_text(blocks[number], encoding="utf-8")
    alone = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=folder,
        env=alone | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=7200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def give(command: str, folder: Path) -> str:
    """Gives a command in a folder, which has to succeed; returns what it printed."""
    words = [part for word in shlex.split(command) for part in _expanded(word, folder)]
    if words[0] == "make":
        # What is ready already is not made again in the copy.
        words[1:1] = ["-o", ".venv/.ready"]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, timeout=7200
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def _expanded(word: str, folder: Path) -> list[str]:
    """Does what a shell does with a word that holds an asterisk."""
    if "*" not in word:
        return [word]
    return sorted(glob.glob(word, root_dir=folder)) or [word]
