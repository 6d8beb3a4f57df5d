# SPDX-License-Identifier: Apache-2.0
import importlib.util
import subprocess

import pytest

from scripts import chaos_atheris


def test_a_machine_without_atheris_says_that_the_stage_was_not_run(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert chaos_atheris.main([]) == 0
    assert capsys.readouterr().out.startswith("atheris: not installed: stage not run")


@pytest.mark.parametrize(
    ("code", "stderr", "survived", "line"),
    [
        (0, "stat::number_of_executed_units: 1234\n", True, "atheris cron: 1,234 inputs survived"),
        (77, "INFO: x\nKeyError: 'a' (00)\n", False, "atheris cron: KeyError: 'a' (00)"),
        (-9, "", False, "atheris cron: no output"),
        (0, "", False, "atheris cron: no output"),
    ],
)
def test_what_atheris_found_is_told(monkeypatch, capsys, code, stderr, survived, line):
    answer = subprocess.CompletedProcess([], code, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **named: answer)
    assert chaos_atheris.search_apart("cron", 1) is survived
    assert capsys.readouterr().out == f"{line}\n"


def test_an_unknown_parser_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert chaos_atheris.main(["corn"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("chaos-atheris: error: received corn, expected some of pickle, ")
