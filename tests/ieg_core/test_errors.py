# SPDX-License-Identifier: Apache-2.0
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


def test_a_message_of_any_length_is_cut_in_the_middle():
    text = str(errors.UserError(f"got {'x' * 10_000_000}: expected less; leave it out"))
    assert len(text) < 2100
    assert text.startswith("got xxx")
    assert text.endswith("xxx: expected less; leave it out")
