# SPDX-License-Identifier: Apache-2.0
"""Which code renames trials, and which does not."""

import shutil
from pathlib import Path

import pytest

import ieg_core
from ieg_core.store import fingerprint

PACKAGE = Path(ieg_core.__file__).parent


@pytest.fixture
def package(tmp_path):
    """Copies the package's source."""
    ignore = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(PACKAGE, tmp_path / "ieg_core", ignore=ignore)


def sources(package: Path, entry: str) -> list[Path]:
    place = package / entry
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


def reword(path: Path) -> None:
    """Changes the first docstring of a file, as an edited message would."""
    path.write_text(
        path.read_text(encoding="utf-8").replace('"""', '"""Other words. ', 1), encoding="utf-8"
    )


def version(package: Path) -> str:
    return fingerprint.code_version.__wrapped__(package)


def test_every_room_is_in_one_of_the_two_lists():
    rooms = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"} - {"py.typed"}
    counted = {entry for entry in fingerprint.COUNTED if "/" not in entry}
    assert counted.isdisjoint(fingerprint.UNCOUNTED)
    assert counted | set(fingerprint.UNCOUNTED) == rooms


@pytest.mark.parametrize("room", fingerprint.UNCOUNTED)
def test_words_in_a_room_that_does_not_count_rename_no_trial(package, room):
    before = version(package)
    for path in sources(package, room):
        if path.relative_to(package).as_posix() not in fingerprint.COUNTED:
            reword(path)
    assert version(package) == before == fingerprint.code_version()


@pytest.mark.parametrize("room", fingerprint.COUNTED)
def test_an_edit_in_a_room_that_counts_renames_every_trial(package, room):
    before = version(package)
    reword(sources(package, room)[-1])
    assert version(package) != before


def test_a_file_that_moves_renames_every_trial(package):
    before = version(package)
    (package / "draws" / "views.py").rename(package / "draws" / "views_of_images.py")
    assert version(package) != before


def test_a_backend_that_is_not_in_use_renames_no_trial(monkeypatch):
    versions = {"numpy": "2", "keras": "3", "tensorflow": "2", "jax": "0.7"}
    monkeypatch.setattr(fingerprint, "library_versions", lambda: versions)
    before = version(PACKAGE)
    del versions["jax"]
    assert version(PACKAGE) == before
    versions["tensorflow"] = "3"
    assert version(PACKAGE) != before
