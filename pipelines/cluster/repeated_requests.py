# SPDX-License-Identifier: Apache-2.0
"""Repeats requests to KFP whose failure may pass, with growing pauses and within a limit.

A request that creates something is repeated only if it was certainly not carried out: KFP has no
idempotency keys, and a run that exists twice trains twice.
"""

from collections.abc import Callable
from typing import TypeVar

from ieg_core.errors import UserError
from ieg_core.host.clock import Clock

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 16.0
"""Seconds between two tries; each pause is twice the one before."""
LIMIT_SECONDS = 120.0
"""Seconds after which a request is no longer repeated."""
SETTLE_SECONDS = 30.0
"""Seconds after which what a request without an answer creates can be found, if it ever can."""


class TransientError(UserError):
    """A request failed in a way that may pass: too many requests, a server error, no answer.

    Args:
      message: The line for the user.
      wait: Seconds after which the server wants to be asked again.
      is_refused: Whether the request was certainly not carried out.
    """

    def __init__(self, message: str, wait: float = 0.0, is_refused: bool = False) -> None:
        super().__init__(message)
        self.wait, self.is_refused = wait, is_refused


def ask(request: Callable[[], T], clock: Clock, seconds: float = LIMIT_SECONDS) -> T:
    """Makes a request that may be carried out twice, until it succeeds.

    Args:
      request: Makes it.
      clock: Tells the time between two tries.
      seconds: How long to try again.

    Raises:
      UserError: When the request is refused, or still fails at the end.
    """
    began, pause = clock.monotonic(), FIRST_PAUSE
    while True:
        try:
            return request()
        except TransientError as error:
            left = began + seconds - clock.monotonic()
            if left <= 0:
                raise UserError(
                    f"{error}; gave up after {seconds:.0f} seconds: check the server and try again"
                ) from error
            wait = min(max(pause, error.wait), left)
        clock.sleep(wait)
        pause = min(2 * pause, LONGEST_PAUSE)


def create(
    request: Callable[[], T],
    find: Callable[[], T | None],
    clock: Clock,
    seconds: float = LIMIT_SECONDS,
) -> T:
    """Makes a request that must not be carried out twice, until it succeeds.

    Args:
      request: Makes it.
      find: Returns what an earlier try has created; None if there is nothing.
      clock: Tells the time between two tries.
      seconds: How long to try again.

    Raises:
      UserError: When the request is refused, or still fails at the end.
    """
    lost: tuple[float, TransientError] | None = None

    def attempt() -> T:
        nonlocal lost
        if lost is not None:
            found = find()
            if found is not None:
                return found
            if clock.monotonic() - lost[0] < SETTLE_SECONDS:
                raise lost[1]
        try:
            return request()
        except TransientError as error:
            if not error.is_refused:
                lost = clock.monotonic(), error
            raise

    try:
        return ask(attempt, clock, seconds)
    except UserError as error:
        if lost is None:
            raise
        raise UserError(
            f"{error}; it may have been carried out: look for it in the KFP UI before trying again"
        ) from error
