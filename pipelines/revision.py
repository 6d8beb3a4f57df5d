# SPDX-License-Identifier: Apache-2.0
"""The git revision that an image is built from; needs only Python and git."""

import subprocess
from pathlib import Path

from ieg_core.errors import UserError

ROOT = Path(__file__).parents[1]
SOURCES = (
    ".dockerignore", "docker", "ieg_core", "requirements.lock", "requirements-gpu.lock",
    "scripts/image_packages.py", "scripts/set_up.py",
)  # fmt: skip
"""The files that go into the image."""
DIRTY = "-dirty"


def revision(dirty: bool, root: Path = ROOT) -> str:
    """Returns the revision of the source, twelve hexadecimal digits.

    Args:
      dirty: Whether uncommitted changes are marked with "-dirty" instead of refused.
      root: The checkout.

    Raises:
      UserError: When this is not a checkout, or files of the image have uncommitted changes.
    """
    # Whoever runs this file trusts the checkout, even if it is another user's.
    git = ("git", "-C", str(root), "-c", f"safe.directory={root}")
    answer = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if answer.returncode:
        reason = (answer.stderr.splitlines() or ["no message"])[0]
        raise UserError(
            f"the tag is the git revision, but this is not a git checkout ({reason}): expected a "
            "clone of the repository"
        )
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", *SOURCES],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
    ).stdout.splitlines()
    if changed and not dirty:
        raise UserError(
            f"{len(changed)} changed files would go into the image ({changed[0].strip()}, …)"
            ": commit them, or mark the image with DIRTY=1"
        )
    return answer.stdout.strip() + (DIRTY if changed else "")


def is_dirty(image: str) -> bool:
    """Returns whether an image contains uncommitted changes: others may have the same tag."""
    return DIRTY in image.rpartition("/")[2].partition(":")[2]
