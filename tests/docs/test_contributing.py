# SPDX-License-Identifier: Apache-2.0
"""CONTRIBUTING.md names files and names that exist."""

import functools
import re

import pytest

from tests.docs.commands import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SPANS = sorted(set(re.findall(r"`([^`\n]+)`", TEXT)))
CODE = ("ieg_core", "components", "pipelines", "scripts", "tests")
PATHS = [
    span for span in SPANS if span.startswith((*(f"{each}/" for each in CODE), "docs/", "k8s/"))
]
# A constant, class or function of ours that a walk tells the reader to edit or to call.
NAMES = [
    span
    for span in SPANS
    if re.fullmatch(r"[A-Z][A-Z_]+|[A-Z][a-z]+[A-Za-z]*|[a-z]+(_[a-z]+)+", span)
    and span not in CODE
    and not re.search(rf"^{span} *=", (ROOT / "Makefile").read_text(), re.MULTILINE)
]


@functools.cache
def sources() -> str:
    files = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize("path", PATHS)
def test_a_named_path_exists(path):
    fixed = re.sub(r"[^/]*<\w+>.*$", "", path)
    assert (ROOT / fixed).exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_named_thing_is_defined(name):
    defined = re.compile(rf"^\s*(?:(?:def|class) {name}\b|{name}(?:\[|:| =))", re.MULTILINE)
    assert defined.search(sources()), name


def test_every_walk_of_the_issue_is_there():
    walks = re.findall(r"^## A new (.+)$", TEXT, re.MULTILINE)
    assert walks == [
        "method",
        "data set",
        "noise type",
        "recipe",
        "option of a sweep",
        "component",
        "report column",
        "KFP retry rule",
        "backend",
    ]


def test_lines_fit_a_screen():
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        assert max(map(len, lines)) <= 100, name
