# SPDX-License-Identifier: Apache-2.0
"""progress.json: how far a cell is, written when something changes and at least every minute.

A thread writes it, so that it stays young also while a framework is imported or a step compiled.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ieg_core.errors import UserError
from ieg_core.ownership import Claim, SupersededError, require_current
from ieg_core.results import write_json_atomic

BEAT_SECONDS = 30.0


@contextlib.contextmanager
def beating(
    claim: Claim, phase: str, step: int = 0, num_steps: int = 0
) -> Iterator[Callable[..., None]]:
    """Keeps a cell's progress.json up to date.

    Args:
      claim: The attempt that works on the cell.
      phase: "starting", "training" or "evaluating".
      step: Steps done.
      num_steps: Steps in all; 0 if not yet known.

    Yields:
      A function that takes what has changed (phase, step, num_steps, steps_per_second,
      accuracy_ema, gpu) and writes the file. It raises SupersededError if there is a later attempt.
    """
    shown: dict[str, Any] = {
        "phase": phase,
        "step": step,
        "num_steps": num_steps,
        "steps_per_second": 0.0,
        "accuracy_ema": None,
        "attempt": claim.attempt,
        "host": socket.gethostname(),
        "gpu": "",
    }
    lock, over = threading.Lock(), threading.Event()

    def tell(**changes: Any) -> None:
        with lock:
            shown.update(changes)
            require_current(claim)
            write_json_atomic(claim.folder / "progress.json", {**shown, "updated": time.time()})

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                tell()
            except SupersededError:
                return
            except (OSError, UserError):
                continue  # the training's next write meets the same, and says so

    tell()
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield tell
    finally:
        over.set()
        thread.join()
