# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md, gone through from start to end."""

import re

import pytest

from tests.docs.commands import ROOT, commands, give, link_program


@pytest.mark.slow
def test_the_tutorial_from_start_to_end(tmp_path):
    """Its very commands, on trainings cut short."""
    link_program(tmp_path)
    said = {}
    for command in commands(ROOT / "docs" / "tutorial.md"):
        short = f"{command} STEPS=60" if command.startswith("make sweep") else command
        said[command] = give(short, tmp_path)
    assert (tmp_path / "runs" / "latest" / "report" / "report.html").exists()
    assert list(tmp_path.glob("runs/trials/*-ieg-*/audit/audit.html"))
    assert (tmp_path / "cleaned.csv").exists()
    sevens = len(list((tmp_path / "my-digits" / "test" / "7").iterdir()))
    line = r"my-digits/test/7/\d{4}\.(png|jpg): \d \d+\.\d %\n"
    assert re.fullmatch(f"({line}){{{sevens}}}", said[list(said)[-1]])
