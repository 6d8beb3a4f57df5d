# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium over the DevTools protocol's pipe: no driver, no package, no port."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "no Chromium here: apt-get install chromium"
PATIENCE = 120
# Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
EXEC = "import os, sys; os.dup2({}, 3); os.dup2({}, 4); os.execv(sys.argv[1], sys.argv[1:])"
KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
    "End": 35, "Enter": 13, "Escape": 27,
}  # fmt: skip


def find() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Tab:
    """One tab; `messages` are what the console was told, `requests` what the page loaded."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer, self._number = b"", 0
        self.events: list[dict] = []
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session and not method.startswith(("Browser.", "Target.")):
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        number = self._number
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str, **parameters: object) -> dict:
        """Waits for an event, which may have come already; it is used up."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for event in self.events:
                known = event.get("params", {})
                if event["method"] == method and parameters.items() <= known.items():
                    self.events.remove(event)
                    return known
            self.events.append(self._receive())
        raise TimeoutError(method)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def reload(self) -> None:
        self.call("Page.reload")
        self.wait_for("Page.loadEventFired")

    def run(self, script: str) -> object:
        """Returns the value of an expression, a promise's result included."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, *keys: str, modifiers: int = 0) -> None:
        for key in keys:
            code = KEYS.get(key, ord(key[0].upper()))
            text = {} if key in KEYS or modifiers else {"text": key}
            known = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
            self.call("Input.dispatchKeyEvent", type="keyDown", **known, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def choose_file(self, selector: str, path: Path) -> None:
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def allow_downloads(self, folder: Path) -> None:
        self.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(folder),
            eventsEnabled=True,
        )

    @property
    def messages(self) -> list[dict]:
        told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event for event in self.events if event["method"] in told]

    @property
    def requests(self) -> list[str]:
        sent = "Network.requestWillBeSent"
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == sent
        ]

    def _receive(self) -> dict:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            if not ready:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def _pipe() -> list[int]:
    """Returns a pipe whose descriptors do not collide with those that Chromium takes."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high


@contextlib.contextmanager
def tab(folder: Path, program: str) -> Iterator[Tab]:
    """Starts Chromium with a profile below `folder`, and ends it."""
    commands_out, commands_in = _pipe()
    answers_out, answers_in = _pipe()
    flags = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--remote-debugging-pipe", "--window-size=1400,900",
        f"--user-data-dir={folder / 'profile'}",
    )  # fmt: skip
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", EXEC.format(commands_out, answers_in), program, *flags],
            pass_fds=(commands_out, answers_in),
            stdout=log,
            stderr=log,
        )
    os.close(commands_out)
    os.close(answers_in)
    try:
        yield Tab(commands_in, answers_out)
    finally:
        os.close(commands_in)  # Chromium ends when its commands do
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            os.close(answers_out)
