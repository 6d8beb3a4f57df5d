# SPDX-License-Identifier: Apache-2.0
"""Every command in the documents can be given; those of whole pages are given in order."""

import argparse
import contextlib
import re
import shlex

import pytest

from ieg_core.cli import main
from ieg_core.sweep.configurations import configs
from pipelines import options, variables
from tests.docs.commands import ROOT, commands, mentions, pages

EVERY = [(page.name, command) for page in pages() for command in commands(page)]
MENTIONED = sorted({(page.name, text) for page in pages() for text in mentions(page)})


def test_there_are_commands_to_test():
    named = {page for page, _ in EVERY}
    assert {"README.md", "cluster.md", "notebook.md", "own-images.md", "tutorial.md"} <= named
    assert len(EVERY) > 30
    assert len(MENTIONED) > 40


GIVEN_BY = {
    "README.md": "docs/test_tutorial.py",
    "tutorial.md": "docs/test_tutorial.py",
    "own-images.md": "docs/test_own_images.py",
    "notebook.md": "ieg_core/test_fitting.py",
    # No test has a cluster or a registry: its commands go to stubs of both, in tests/pipelines and
    # tests/scripts, and the page is held against what there is.
    "cluster.md": "docs/test_cluster.py",
}


def test_every_page_with_commands_is_gone_through_by_a_test():
    """The other pages name commands in running text alone, most of which train for hours."""
    assert {page for page, _ in EVERY} == GIVEN_BY.keys()
    for page, test in GIVEN_BY.items():
        assert page in (ROOT / "tests" / test).read_text(encoding="utf-8")


def check_make(words):
    """Holds a call of make against the Makefile, and a sweep against what can be asked for."""
    targets = [word for word in words if "=" not in word and not word.startswith("-")]
    values = dict(word.split("=", 1) for word in words if "=" in word)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
    assert not variables.find_problem(targets, values)
    if targets == ["sweep"]:
        parser = argparse.ArgumentParser()
        variables.add_arguments(parser, "sweep")
        arguments = parser.parse_args(variables.as_flags("sweep", [*words[1:], "DEVICES=cpu"]))
        assert configs(options.read(arguments).request)


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
        assert words[1] in main.COMMANDS
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
            main.build_parser().parse_args(filled)
    else:
        check_python(words[1:])
