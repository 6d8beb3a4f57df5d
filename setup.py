# SPDX-License-Identifier: Apache-2.0
"""The package page's text: the README, with its links to files of this repository made absolute.

Everything else about the package is in pyproject.toml.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
# A Markdown link or picture to a place that is neither an address nor an anchor.
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def absolute_links(text: str, repository: str) -> str:
    """Returns Markdown whose links to files work outside the repository too."""

    def absolute(link: re.Match[str]) -> str:
        picture, label, path = link.groups()
        view = "raw" if picture else "blob"
        return f"{picture}[{label}]({repository}/{view}/main/{path})"

    return RELATIVE.sub(absolute, text)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        long_description=absolute_links(
            (ROOT / "README.md").read_text(encoding="utf-8"), project["urls"]["Repository"]
        ),
        long_description_content_type="text/markdown",
    )
