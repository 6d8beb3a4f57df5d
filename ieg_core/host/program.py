# SPDX-License-Identifier: Apache-2.0
"""How a program reads its words, and ends: one line and an exit code, never a traceback."""

import argparse
import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, ParamSpec

from ieg_core.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USER_ERROR,
    FailedError,
    UserError,
    printable,
)

P = ParamSpec("P")


class Parser(argparse.ArgumentParser):
    """An argument parser whose error messages are one line; descriptions keep their line breaks."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter} | settings)
        self._words: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Raises a UserError instead of printing the usage."""
        dashed = (word for word in self._words if word[:1] == "-" and os.path.lexists(word))
        fixes = [
            *(f"write ./{word} for the path {word}" for word in dashed),
            f"see {self.prog} --help",
        ]
        raise UserError("; ".join([message, *fixes]))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses arguments; expands `~` also where a shell does not, as in --out=~/runs."""
        words = sys.argv[1:] if args is None else args
        self._words = [_expanded(word) for word in words]
        return super().parse_known_args(self._words, namespace)


def _expanded(word: str) -> str:
    option, equals, path = word.partition("=") if word.startswith("--") else ("", "", word)
    is_home = path == "~" or path.startswith("~/")
    return f"{option}{equals}{os.path.expanduser(path)}" if is_home else word


def program(name: str) -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Makes the main function of a program end as all programs here do.

    Args:
      name: What its lines begin with, such as "ieg".

    Returns:
      A decorator. The function then returns its own exit code, 0 for None; or 2 after a UserError,
      130 after Ctrl-C, 141 if the reader of its output has closed the pipe, 1 after a FailedError,
      an error of the system or a subprocess that failed.
    """

    def decorate(main: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(main)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                code = main(*args, **kwargs)
                sys.stdout.flush()
            except UserError as error:
                print(f"{name}: error: {error}", file=sys.stderr)
                return EXIT_USER_ERROR
            except KeyboardInterrupt:
                again = "run the same command again to continue"
                print(f"\n{name}: interrupted; {again}", file=sys.stderr)
                return EXIT_INTERRUPTED
            except BrokenPipeError:
                # As in `ieg predict … | head`. Python flushes standard output on exit and would
                # complain.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return EXIT_BROKEN_PIPE
            except (FailedError, OSError, subprocess.CalledProcessError) as error:
                print(f"{name}: failed: {printable(_describe(error))}", file=sys.stderr)
                return EXIT_FAILED
            return EXIT_OK if code is None else code

        return run

    return decorate


def _describe(error: Exception) -> str:
    """Returns what failed, and why; of an error of the operating system the file."""
    if isinstance(error, subprocess.CalledProcessError):
        words = ["python" if word == sys.executable else str(word) for word in error.cmd]
        return f"{shlex.join(words)} ended with exit code {error.returncode}"
    if isinstance(error, OSError):  # such as EIO, ESTALE or EMFILE: the machine's own
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{error.strerror or type(error).__name__}"
    return str(error)
