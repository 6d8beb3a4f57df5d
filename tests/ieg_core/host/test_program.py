# SPDX-License-Identifier: Apache-2.0
"""How programs end."""

import sys
from subprocess import CalledProcessError

import pytest

from ieg_core.errors import FailedError, UserError
from ieg_core.host.program import Parser, program


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (UserError("expected a name\nof one line"), 2, "x: error: expected a name\\nof one line\n"),
        (KeyboardInterrupt(), 130, "\nx: interrupted; run the same command again to continue\n"),
        (OSError(5, "Input/output error", "a\tb"), 1, "x: failed: a\\tb: Input/output error\n"),
        (FailedError("no pod\nstarted"), 1, "x: failed: no pod\\nstarted\n"),
        (
            CalledProcessError(3, [sys.executable, "-m", "a b"]),
            1,
            "x: failed: python -m 'a b' ended with exit code 3\n",
        ),
    ],
)
def test_what_ends_a_program_is_one_line_and_a_code(capsys, raised, code, line):
    @program("x")
    def main():
        raise raised

    assert main() == code
    assert capsys.readouterr().err == line


def test_a_closed_pipe_ends_a_program_quietly(capsys, monkeypatch, tmp_path):
    @program("x")
    def main():
        raise BrokenPipeError

    with (tmp_path / "pipe").open("w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main() == 141
        print("after it")
        output.flush()
    assert (tmp_path / "pipe").read_text() == ""
    assert capsys.readouterr().err == ""


def test_a_program_that_ends_well_has_its_own_code():
    @program("x")
    def main(code):
        return code

    assert main(3) == 3
    assert main(None) == 0
    assert main.__name__ == "main"


def test_a_wrong_option_is_one_line_and_a_home_directory_is_found(capsys, monkeypatch):
    @program("x")
    def main(*words):
        parser = Parser(prog="x", description="one\n  two")
        parser.add_argument("--out")
        print(parser.parse_args(words).out)

    monkeypatch.setenv("HOME", "/homes/me")
    assert main("--out=~/runs") == 0
    assert capsys.readouterr().out == "/homes/me/runs\n"
    assert main("--in=here") == 2
    assert capsys.readouterr().err == (
        "x: error: unrecognized arguments: --in=here; see x --help\n"
    )
    with pytest.raises(SystemExit):
        main("--help")
    assert "one\n  two" in capsys.readouterr().out


def test_a_path_that_begins_with_a_dash_is_explained(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-photos").mkdir()
    parser = Parser(prog="x")
    parser.add_argument("place")
    with pytest.raises(UserError, match=r"; write \./-photos for the path -photos; see x --help"):
        parser.parse_args(["-photos"])
    with pytest.raises(UserError, match=r"required: place; see x --help"):
        parser.parse_args(["-other"])
    assert parser.parse_args(["./-photos"]).place == "./-photos"
