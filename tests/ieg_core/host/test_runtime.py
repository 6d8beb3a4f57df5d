# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

from ieg_core.errors import UserError
from ieg_core.host import runtime
from ieg_core.host.runtime import Runtime


@pytest.mark.parametrize(("text", "seconds"), [("600", 600.0), ("0", 0.0), ("", 30.0)])
def test_the_environment_sets_the_time_between_checkpoints(monkeypatch, text, seconds):
    monkeypatch.setenv("IEG_CHECKPOINT_SECONDS", text)
    assert Runtime().checkpoint_seconds == seconds
    assert Runtime(checkpoint_seconds=7.0).checkpoint_seconds == 7.0


@pytest.mark.parametrize("text", ["five", "-1", "nan", "inf"])
def test_no_number_of_seconds_is_refused(text):
    with pytest.raises(UserError, match="IEG_CHECKPOINT_SECONDS must be a number"):
        runtime.checkpoint_seconds({"IEG_CHECKPOINT_SECONDS": text})


@pytest.mark.parametrize(("text", "expected"), [("1", True), ("0", False), ("", False)])
def test_a_gpu_is_required_where_the_profile_says_so(text, expected):
    assert runtime.is_gpu_required({"IEG_REQUIRE_GPU": text}) is expected
    assert not runtime.is_gpu_required({})


def test_what_a_framework_says_as_it_starts_is_told_only_if_it_fails(capfd):
    with runtime.held_stderr():
        os.write(2, b"I0000 starting\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"

    @runtime.held_stderr()
    def fail():
        os.write(2, b"no such library\n")
        raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert capfd.readouterr().err == "no such library\n"

    @runtime.held_stderr()
    def interrupt():
        os.write(2, b"I0000 starting\n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert capfd.readouterr().err == ""


def test_another_encoding_of_file_names_restarts_in_utf8(monkeypatch):
    started = []
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.setattr("os.execv", lambda program, words: started.append(words))
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "ieg_core.cli.main", "status", "café"])
    runtime.use_utf8()
    assert started == []
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "iso8859-1")
    runtime.use_utf8()
    words = ["-X", "utf8", "-m", "ieg_core.cli.main", "status", "café"]
    assert [each[1:] for each in started] == ([] if sys.flags.utf8_mode else [words])
    assert os.environ["PYTHONUTF8"] == "1"
