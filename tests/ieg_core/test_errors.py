# SPDX-License-Identifier: Apache-2.0
import ast
import re
import tomllib
from pathlib import Path

import pytest

from ieg_core import errors

ROOT = Path(__file__).parents[2]


def test_a_missing_extra_says_what_to_install():
    error = errors.missing_extra("tensorflow-datasets", "tfds")
    assert isinstance(error, errors.UserError)
    assert str(error) == "tensorflow-datasets is not installed: pip install 'ieg-core[tfds]'"


@pytest.mark.parametrize(
    ("package", "extra"),
    [("tensorflow-datasets", "tfds"), ("google-cloud-storage", "gcs"), ("jax", "jax")],
)
def test_each_extra_brings_its_package(package, extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"][extra]
    assert any(entry.startswith(f"{package}>=") for entry in wanted)


def test_each_message_says_what_was_expected_or_how_to_fix_it():
    """Unless it passes another's message on, or ends in a remedy by name."""
    fixed = re.compile(
        r"expected|must be|; |: [`a-z]| or |use |see |\{hint\}|unknown_name"
        r"|\{(?:_?[A-Z]+|_?fix|remedy|error|numbers)\}"
    )
    messages = 0
    for room in ("ieg_core", "components", "pipelines", "scripts"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and node.args):
                    continue
                text = ast.unparse(node.args[0])
                is_message = isinstance(node.args[0], ast.JoinedStr | ast.Constant)
                if ast.unparse(node.func) != "UserError" or not is_message:
                    continue
                messages += 1
                assert fixed.search(text), f"{path}:{node.lineno}: {text}"
    assert messages > 400


def test_a_message_of_any_length_is_cut_in_the_middle():
    text = str(errors.UserError(f"got {'x' * 10_000_000}: expected less; leave it out"))
    assert len(text) < 2100
    assert text.startswith("got xxx")
    assert text.endswith("xxx: expected less; leave it out")
