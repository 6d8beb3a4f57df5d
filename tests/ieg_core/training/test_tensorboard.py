# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys

from ieg_core.training.tensorboard import FILE_NAME, open_scalars

CURVES = {
    "training": [{"step": 25, "loss": 2.0, "learning_rate": 0.1}],
    "evaluations": [{"step": 25, "accuracy_ema": 0.5}],
}
# TensorBoard's reader falls back on its own code where there is no TensorFlow.
READ = """
import sys, json
sys.modules["tensorflow"] = None
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1]).Reload()
print(json.dumps({tag: [(e.step, e.value) for e in events.Scalars(tag)]
                  for tag in events.Tags()["scalars"]}))
"""


def read(folder) -> dict:
    answer = subprocess.run(
        [sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout)


def test_tensorboard_reads_what_was_written_and_no_step_twice(tmp_path):
    longer = {
        "training": [*CURVES["training"], {"step": 50, "loss": 1.0, "learning_rate": 0.05}],
        "evaluations": CURVES["evaluations"],
    }
    with open_scalars(tmp_path) as append:
        append(CURVES)
        append(CURVES)
        append(longer)
    found = read(tmp_path)
    assert found["train/loss"] == [[25, 2.0], [50, 1.0]]
    assert found["test/accuracy_ema"] == [[25, 0.5]]


def test_a_resumed_run_starts_its_file_anew(tmp_path):
    for _ in range(2):
        with open_scalars(tmp_path) as append:
            append(CURVES)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert read(tmp_path)["train/loss"] == [[25, 2.0]]
