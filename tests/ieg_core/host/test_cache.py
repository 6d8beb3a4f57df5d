# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from ieg_core.host.cache import cache_folder


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Path.home() / ".cache" / "ieg"),
        ({"XDG_CACHE_HOME": "/somewhere"}, Path("/somewhere/ieg")),
        ({"XDG_CACHE_HOME": "relative"}, Path.home() / ".cache" / "ieg"),
    ],
)
def test_the_folder_is_among_the_users_caches(environ, expected):
    assert cache_folder(environ) == expected


def test_without_a_home_nothing_is_cached(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # no HOME, and no entry in passwd
    with pytest.raises(OSError, match="Not a directory"):
        cache_folder({}).mkdir(parents=True)
