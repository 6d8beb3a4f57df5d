# SPDX-License-Identifier: Apache-2.0
import errno
import os

import pytest

from ieg_core.errors import UserError
from ieg_core.host import files


def test_json_is_replaced_whole_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "deep" / "value.json"
    files.write_json_atomic(path, {"a": 1})
    files.write_json_atomic(path, {"a": 2})
    assert files.read_json(path) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["value.json"]


def test_nan_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "value.json"
    files.write_json_atomic(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json_atomic(path, {"a": float("nan")})
    assert files.read_json(path) == {"a": 1}


def test_a_missing_file_reads_as_none_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "value.json"
    assert files.read_json(path) is None
    path.write_text("{")
    with pytest.raises(UserError, match=r"value\.json is damaged"):
        files.read_json(path)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "no permission")],
)
def test_a_disk_that_refuses_is_one_clear_line(tmp_path, monkeypatch, number, reason):
    def refuse(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=reason):
        files.write_json_atomic(tmp_path / "value.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_root_should_be_is_one_clear_line(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"a part of the path is a file|of that name exists"):
        files.write_json_atomic(tmp_path / "runs" / "trials" / "x.json", {})
