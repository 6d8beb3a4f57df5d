# SPDX-License-Identifier: Apache-2.0
"""`ieg completion bash|zsh`: prints a script that completes commands, options and files."""

import argparse
import shlex
from collections.abc import Iterator

ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
"""Lets zsh run the script for bash."""
SCRIPT = """\
_ieg() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=
    case ${{COMP_CWORD}}:${{COMP_WORDS[1]}}:$word in
        1:*) words={commands} ;;
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _ieg ieg
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg completion`."""
    parser.add_argument(
        "shell",
        choices=("bash", "zsh"),
        help="for example in ~/.bashrc: source <(ieg completion bash)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the script of a shell."""
    print((ZSH if arguments.shell == "zsh" else "") + script(arguments.parser), end="")
    return 0


def script(parser: argparse.ArgumentParser) -> str:
    """Returns the script for bash.

    Options complete after a dash, an argument with fixed choices completes to these, and anything
    else to a file.

    Args:
      parser: The parser of the command line.
    """
    known = dict(commands(parser))
    cases = []
    for name, command in known.items():
        actions = command._actions
        options = [text for action in actions for text in action.option_strings if text[:2] == "--"]
        cases.append(f"        *:{name}:-*) words={shlex.quote(' '.join(options))} ;;")
        if choices := [str(each) for action in actions for each in action.choices or ()]:
            cases.append(f"        2:{name}:*) words={shlex.quote(' '.join(choices))} ;;")
    return SCRIPT.format(commands=shlex.quote(" ".join(known)), cases="\n".join(cases))


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yields each command with its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()
