# SPDX-License-Identifier: Apache-2.0
"""Lines of documents fit a screen."""

import pytest

from tests.docs.commands import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_have_at_most_100_characters(page):
    """Tables, addresses and commands are exempt: they cannot be wrapped."""
    in_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        in_code ^= line.lstrip().startswith("```")
        if in_code or line.startswith(("|", "    ")) or "://" in line:
            continue
        assert len(line) <= 100, f"{page.name}:{number}"
