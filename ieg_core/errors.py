# SPDX-License-Identifier: Apache-2.0
"""What users see of failures: the exit codes, an invalid request, a training that diverged."""

import difflib
from collections.abc import Iterable

EXIT_OK, EXIT_FAILED, EXIT_USER_ERROR, EXIT_DIVERGED, EXIT_SUPERSEDED = range(5)
EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 130, 141
"""The exit codes of all commands; superseded: another machine has taken over the trial."""
_HALF = 1000


class UserError(ValueError):
    """A mistake in a request: what was received, what was expected, how to fix it.

    The command line prints it on one line and exits with code 2, without a traceback.
    """

    def __str__(self) -> str:
        """Returns the message; unprintable characters are escaped, and a very long one is cut.

        What was received can be of any length; the end of a message says how to fix it.
        """
        text = super().__str__()
        if len(text) > 2 * _HALF:
            text = f"{text[:_HALF]} … {text[-_HALF:]}"
        return printable(text)


def printable(text: str) -> str:
    """Returns a text as one line, with every unprintable character escaped as Python does."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def some(names: Iterable[str], most: int = 3, separator: str = ", ") -> str:
    """Returns the first few of several names, with "…" in place of the others."""
    listed = list(names)
    return separator.join([*listed[:most], *(["…"] if len(listed) > most else [])])


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Refuses a value unless a condition holds.

    Args:
      condition: Whether the value is valid.
      name: What the value is, for example "batch_size".
      value: The value that was received.
      expected: Which values are valid, to follow "must be".

    Raises:
      UserError: When the condition does not hold.
    """
    if not condition:
        raise UserError(f"{name} must be {expected}, got {value!r}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that does not exist, closest names first.

    Args:
      kind: What the name stands for, for example "method".
      name: The name that was received.
      known: Every valid name.

    Returns:
      The error, for the caller to raise.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}expected one of {', '.join(names)}")


def missing_extra(package: str, extra: str) -> UserError:
    """Returns the error for a missing package that only an extra of this one installs.

    Args:
      package: The name of the missing package on the index, for example "tensorflow-datasets".
      extra: The extra that installs it, for example "tfds".

    Returns:
      The error, for the caller to raise.
    """
    return UserError(f"{package} is not installed: pip install 'ieg-core[{extra}]'")


class FailedError(RuntimeError):
    """Something that a program needs has failed. The program prints one line and exits with 1."""


class DivergedError(RuntimeError):
    """Training cannot continue: a loss term is no longer finite. The command line exits with 3."""
