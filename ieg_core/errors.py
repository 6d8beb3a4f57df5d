# SPDX-License-Identifier: Apache-2.0
"""The exceptions that people see: a wrong request, and a training that diverged."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what was asked for: what was received, what was expected, how to mend it.

    The command line prints it on one line and exits with code 2, without a traceback.
    """

    def __str__(self) -> str:
        """The message; what no line can show, as in a file's name, is written as Python has it."""
        return printable(super().__str__())


def printable(text: str) -> str:
    """Returns a text as one line that every terminal and every log can show."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raises UserError, saying what `name` must be and what it was, unless the condition holds."""
    if not condition:
        raise UserError(f"{name} must be {expected}, got {value!r}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Builds the error for a name that does not exist, nearest names first.

    Args:
      kind: What the name stands for, for example "method".
      name: The name that was received.
      known: Every name that would have been accepted.

    Returns:
      The error, to be raised by the caller.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}expected one of {', '.join(names)}")


def missing_extra(package: str, extra: str) -> UserError:
    """Builds the error for a package that only one of this package's extras installs.

    Args:
      package: The name of the missing package on the index, for example "tensorflow-datasets".
      extra: The extra that brings it, for example "tfds".

    Returns:
      The error, to be raised by the caller.
    """
    return UserError(f"{package} is not installed: pip install 'ieg-core[{extra}]'")


class DivergedError(RuntimeError):
    """The training cannot go on: a loss term is no longer finite. The command line exits with 3."""
