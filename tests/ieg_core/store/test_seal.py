# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from ieg_core.errors import UserError
from ieg_core.store import seal
from ieg_core.store.records import FailureRecord
from tests.records import example

VALUE = {"name": "café", "numbers": [1, 2.5, -0.0, 1e-300], "inner": {"b": None, "a": True}}


def test_an_object_comes_back_in_any_layout_and_order():
    sealed = seal.seal(VALUE)
    assert seal.unseal(sealed) == VALUE
    assert seal.unseal(dict(reversed(sealed.items()))) == VALUE
    assert seal.unseal(seal.parse_json(str(sealed).replace("'", '"').replace("None", "null")
                                       .replace("True", "true").encode())) == VALUE  # fmt: skip


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "received None, expected an object"),
        ([], r"received \[\], expected an object"),
        ({}, "it has no sha256"),
        (VALUE, "it has no sha256"),
        (seal.seal(VALUE) | {"name": "cafe"}, "edited or altered"),
        (seal.seal(VALUE) | {"another": 1}, "edited or altered"),
        (seal.seal(VALUE) | {"sha256": None}, "edited or altered"),
    ],
)
def test_what_is_altered_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        seal.unseal(value)


BAD = (
    b"", b"{", b"\xff\xfe", b"NaN", b'{"a": Infinity}', b"[" * 100_000, b'{"a":' * 100_000,
    b"9" * 5_000, b"\xef\xbb\xbf{}", b'{"a": 1e999}', b"[" * 101 + b"]" * 101,
    b'{"a":' * 101 + b"1" + b"}" * 101,
)  # fmt: skip


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_hostile_json_is_one_error(data):
    with pytest.raises(ValueError):  # noqa: PT011 - each reason is another
        seal.parse_json(data)


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe", "file in the way", "huge"])
def test_what_is_no_readable_file_is_one_line(tmp_path, kind):
    path = FailureRecord.path(tmp_path / "trial")
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(seal.MAX_BYTES + 1)
    else:
        path.parent.rmdir()
        path.parent.write_text("")
    with pytest.raises(UserError, match=r"failure\.json cannot be read \(") as error:
        FailureRecord.read(tmp_path / "trial")
    assert "\n" not in str(error.value)
    assert not FailureRecord.exists(tmp_path / "trial")


def test_a_number_that_no_computer_takes_is_refused():
    value = example(FailureRecord).to_value() | {"step": 10**4000}
    with pytest.raises(UserError, match=r"step: received 1000.*…, expected a number of at most"):
        FailureRecord.parse(value, "here")
