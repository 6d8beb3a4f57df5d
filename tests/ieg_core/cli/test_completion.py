# SPDX-License-Identifier: Apache-2.0
import subprocess

import pytest

from ieg_core.cli import completion, main


def completed(*words):
    """What bash offers when the last word is being typed."""
    script = completion.script(main.build_parser())
    typed = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _ieg; echo ${{COMPREPLY[*]}}"
    answer = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True
    )
    assert answer.stderr == ""
    return answer.stdout.split()


def test_commands_options_and_choices_are_completed():
    assert completed("ieg", "") == list(main.COMMANDS)
    assert completed("ieg", "re") == ["report", "recipes"]
    assert completed("ieg", "report", "--o") == ["--out"]
    assert completed("ieg", "audit", "runs/latest", "--js") == ["--json"]
    assert completed("ieg", "completion", "z") == ["zsh"]
    assert completed("ieg", "audit", "pho") == []  # bash then completes files


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_command(capsys, shell):
    assert main.main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("complete -o default -F _ieg ieg\n")
    assert ("bashcompinit" in printed) == (shell == "zsh")
