# SPDX-License-Identifier: Apache-2.0
"""Every command in the documents can be given; the tutorial is gone through to its end."""

import contextlib
import glob
import re
import shlex
import shutil
import subprocess

import pytest

from ieg_core import cli, sweep
from tests.docs.commands import ROOT, commands, mentions, pages

EVERY = [(page.name, command) for page in pages() for command in commands(page)]
MENTIONED = sorted({(page.name, text) for page in pages() for text in mentions(page)})


def test_there_are_commands_to_test():
    named = {page for page, _ in EVERY}
    assert {"README.md", "cluster.md", "notebook.md", "own-images.md", "tutorial.md"} <= named
    assert len(EVERY) > 30
    assert len(MENTIONED) > 40


def check_make(words):
    """Holds a call of make against the Makefile, and a sweep against what can be asked for."""
    targets = [word for word in words if "=" not in word and not word.startswith("-")]
    values = dict(word.split("=", 1) for word in words if "=" in word)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
    for variable in values:
        assert re.search(rf"\b{variable}\b", makefile), variable
    if targets == ["sweep"]:
        usual = dict(re.findall(r"^([A-Z_]+) *= *(.*)$", makefile, re.MULTILINE))
        asked = usual | values
        request = sweep.SweepRequest(
            dataset=asked["DATASET"],
            noise_ratios=tuple(map(float, filter(None, asked["NOISE"].split(",")))),
            methods=tuple(asked["METHODS"].split(",")),
            seeds=tuple(map(int, asked["SEEDS"].split(","))),
            recipe=asked["RECIPE"],
            network=asked["NETWORK"],
            steps=int(asked["STEPS"] or 0),
            settings=tuple(asked["SET"].split()),
            labels=asked["LABELS"],
        )
        assert sweep.configs(request)


def check_python(words):
    """Holds a call of Python against the files that there are."""
    if words[0] == "-m":
        module = words[1].replace(".", "/")
        assert (ROOT / f"{module}.py").exists() or (ROOT / module / "__main__.py").exists(), module
    else:
        assert (ROOT / words[0]).exists(), words[0]


@pytest.mark.parametrize(("page", "command"), MENTIONED)
def test_a_command_in_running_text_is_one_that_there_is(page, command):
    words = shlex.split(command)
    if words[0] == "make":
        check_make(words[1:])
    elif words[0].endswith("ieg"):
        assert f"ieg {words[1]} " in cli.__doc__ or f"ieg {words[1]}\n" in cli.__doc__
    else:
        check_python(words[1:])


@pytest.mark.parametrize(("page", "command"), EVERY)
def test_a_command_is_one_that_there_is(page, command):
    words = shlex.split(command)
    if words[0] == "make":
        check_make(words[1:])
    elif words[0].endswith("ieg"):
        filled = [word.strip("<>[]…") or "x" for word in words[1:]]
        with contextlib.suppress(SystemExit):  # --help, --version; a mistake is a UserError
            cli.build_parser().parse_args(filled)
    else:
        check_python(words[1:])


@pytest.mark.slow
def test_the_tutorial_from_start_to_end(tmp_path):
    """Its very commands, on trainings cut short, in a copy of the working tree's program."""
    for name in ("Makefile", "ieg_core", "components", "pipelines", "schedules.yaml", "docs"):
        source = ROOT / name
        (tmp_path / name).symlink_to(source, target_is_directory=source.is_dir())
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    said = {}
    for command in commands(ROOT / "docs" / "tutorial.md"):
        short = f"{command} STEPS=60" if command.startswith("make sweep") else command
        words = [part for word in shlex.split(short) for part in expanded(word, tmp_path)]
        if words[0] == "make":
            # What is ready already is not made again in the copy.
            words[1:1] = ["-o", ".venv/.ready"]
        done = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=3600
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        said[command] = done.stdout
    assert (tmp_path / "runs" / "latest" / "report" / "report.html").exists()
    assert list(tmp_path.glob("runs/cells/*-ieg-*/audit/audit.html"))
    assert (tmp_path / "cleaned.csv").exists()
    sevens = len(list((tmp_path / "my-digits" / "test" / "7").iterdir()))
    line = r"my-digits/test/7/\d{4}\.(png|jpg): \d \d+\.\d %\n"
    assert re.fullmatch(f"({line}){{{sevens}}}", said[list(said)[-1]])
    shutil.rmtree(tmp_path / "runs")


def expanded(word: str, folder) -> list[str]:
    """Does what a shell does with a word that holds an asterisk."""
    if "*" not in word:
        return [word]
    return sorted(glob.glob(word, root_dir=folder)) or [word]
