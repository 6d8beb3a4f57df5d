# SPDX-License-Identifier: Apache-2.0
"""Installs the packages of a lock file that pods need: no development tools, no clients.

Runs during the image's build. The lock file's comments name what requires each package; selected
are the project's dependencies (except its group "dev") and, in turn, what those require. So one
lock file serves laptops and pods, and both run the same versions.
"""

import os
import re
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from scripts import set_up

PROJECT = "ieg-core (pyproject.toml)"
UNUSED = ("docker", "kfp-kubernetes", "kfp-server-api", "kubernetes", "libclang")
"""Required, but never imported in a pod: clients of clusters and engines, a compiler's bindings.

KFP's executor imports only kfp, not the dependencies of its client.
"""


def needed(lock: str, unused: Collection[str] = UNUSED) -> str:
    """Returns the entries of a lock file that pods need, including hashes.

    Args:
      lock: The lock file's text, as uv writes it, with its comments "# via …".
      unused: Packages to omit, together with what only they require.

    Returns:
      The selected entries, in their order.
    """
    entries = re.findall(r"^(?:[a-z0-9].*\n(?:[ \t].*\n?)*)", lock, re.MULTILINE)
    names = [re.split(r"[=\[ ]", entry, maxsplit=1)[0] for entry in entries]
    kept: set[str] = set()
    while True:
        wanted = {
            name
            for name, entry in zip(names, entries, strict=True)
            if name not in unused and _wanted_by(entry) & (kept | {PROJECT})
        }
        if wanted <= kept:
            return "".join(
                entry for name, entry in zip(names, entries, strict=True) if name in kept
            )
        kept |= wanted


def _wanted_by(entry: str) -> set[str]:
    comments = re.findall(r"^\s+#\s*(.*)$", entry, re.MULTILINE)
    return {comment.removeprefix("via").strip() for comment in comments} - {""}


def select(lock: Path, selected: Path) -> None:
    """Writes the part of a lock file that pods need, and the installer's entry.

    What is installed is made from this file alone, so that its layer outlives a change of a tool.
    """
    text = lock.read_text(encoding="utf-8")
    selected.write_text(needed(text) + set_up.locked_requirement(text, "uv"), encoding="utf-8")


def install(selected: Path) -> None:
    """Installs what `select` wrote."""
    python = set_up.make_environment()
    uv = set_up.install_uv(python)
    env = set_up.uv_environment(set_up.pip_configuration(python), os.environ)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write(needed(selected.read_text(encoding="utf-8")))
        file.flush()
        # Compiled now, since the file system is read-only later.
        set_up.run(
            f"install {selected}",
            uv, "pip", "sync", "--quiet", "--python", python, "--no-cache", "--link-mode", "copy",
            "--require-hashes", "--compile-bytecode", file.name,
            env=env,
        )  # fmt: skip
    tools = (python, "-m", "pip", "uninstall", "--quiet", "--yes", "uv", "pip")
    set_up.run("remove the installers", *tools)
    for folder in set_up.VENV.glob("lib/python3*/site-packages/tensorflow/include"):
        set_up.run("remove headers that only a compiler needs", "rm", "-r", folder)


def main() -> None:
    """Selects from the given lock file; without an argument, installs the selection."""
    if len(sys.argv) > 1:
        select(Path(sys.argv[1]), Path("selected.lock"))
    else:
        install(set_up.LOCK)


if __name__ == "__main__":
    main()
