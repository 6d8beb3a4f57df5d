# SPDX-License-Identifier: Apache-2.0
"""Reads event files by TensorBoard's own reader."""

import json
import subprocess
import sys
from pathlib import Path

# TensorBoard's reader falls back on its own code where there is no TensorFlow.
READ = """
import sys, json
from base64 import b64encode
sys.modules["tensorflow"] = None
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"images": 0, "scalars": 0}).Reload()
print(json.dumps({
    "scalars": {tag: [(e.step, e.value) for e in events.Scalars(tag)]
                for tag in events.Tags()["scalars"]},
    "pictures": {tag: [(e.step, e.width, e.height, b64encode(e.encoded_image_string).decode())
                       for e in events.Images(tag)]
                 for tag in events.Tags()["images"]}}))
"""

Scalars = dict[str, list[list[float]]]


def read_scalars(folder: Path) -> Scalars:
    """Returns (step, value) by tag."""
    return _read(folder)["scalars"]


def read_pictures(folder: Path, *, content: bool = False) -> dict[str, list[tuple]]:
    """Returns (step, width, height, size in bytes, or content in base 64) by tag."""
    return {
        tag: [
            (step, width, height, text if content else len(text) * 3 // 4)
            for step, width, height, text in shown
        ]
        for tag, shown in _read(folder)["pictures"].items()
    }


def _read(folder: Path) -> dict:
    answer = subprocess.run(
        [sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout)
