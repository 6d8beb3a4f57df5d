# SPDX-License-Identifier: Apache-2.0
import zipfile

import pytest

from ieg_core.errors import UserError
from ieg_core.host import archives
from ieg_core.store import model_file
from ieg_core.store.model_file import ModelFacts, read_facts, write_facts

FACTS = ModelFacts(("Kätzchen", "b"), (4, 4, 1), trained_on="digits", method="l2r")


@pytest.fixture
def path(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(range(256)))
    return tmp_path / "model.keras"


def test_facts_come_back(path):
    write_facts(path, FACTS)
    assert read_facts(path) == FACTS


def test_flipped_bits_are_harmless_or_found(path):
    write_facts(path, FACTS)
    content = path.read_bytes()
    harmless = 0
    for place in range(0, len(content) * 8, 43):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            harmless += read_facts(path) == FACTS
        except UserError:
            continue
    assert harmless < 60  # dates, attributes and versions of the archive's members


def test_another_member_and_another_format_are_refused(path, monkeypatch):
    monkeypatch.setattr(model_file, "SCHEMA", 2)
    write_facts(path, FACTS)
    monkeypatch.undo()
    with pytest.raises(UserError, match="has another format, expected schema 1"):
        read_facts(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/other", "x")
    with pytest.raises(UserError, match="it was altered: its sha256 does not match its content"):
        read_facts(path)


def test_facts_that_unpack_to_much_more_than_the_file_are_not_unpacked(path, monkeypatch):
    monkeypatch.setattr(archives, "_MOST_TEXT", 1000)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ieg.json", " " * 100_000)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *arguments: pytest.fail("unpacked"))
    with pytest.raises(UserError, match=r"unpacks ieg\.json to 100,000 bytes: expected at most"):
        read_facts(path)
    assert not model_file.add_digest(path)


def test_an_earlier_versions_model_gets_a_digest(path):
    assert not model_file.add_digest(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(
            "ieg.json", '{"schema": 1, "class_names": ["a", "b"], "image_shape": [4, 4, 1]}'
        )
    with pytest.raises(UserError, match="it has no sha256"):
        read_facts(path)
    assert model_file.add_digest(path)
    assert read_facts(path) == ModelFacts(("a", "b"), (4, 4, 1))
    assert not model_file.add_digest(path)
