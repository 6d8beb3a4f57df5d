# SPDX-License-Identifier: Apache-2.0
"""A run's curves as TensorBoard scalars: `tensorboard --logdir runs/cells`.

The event file is written through TensorBoard's own record writer, without TensorFlow. A run starts
it anew from its checkpoint's curves, so that a resumed run shows no step twice.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ieg_core.results import writable

Curves = Mapping[str, Sequence[Mapping[str, float]]]

FILE_NAME = "events.out.tfevents.0.ieg"
_GROUPS = {"training": "train", "evaluations": "test"}


@contextlib.contextmanager
def open_scalars(folder: Path) -> Iterator[Callable[[Curves], None]]:
    """Holds a run's event file open.

    Args:
      folder: The run's TensorBoard folder, made if need be.

    Yields:
      A function that appends those rows of the curves that it has not written yet. The tags are
      "train/…" and "test/…" followed by the curve's name, the steps are training steps.

    Raises:
      UserError: The folder cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE_NAME).open("wb", buffering=0)
    writer = RecordWriter(file)
    writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    written = dict.fromkeys(_GROUPS, 0)

    def append(curves: Curves) -> None:
        for group, prefix in _GROUPS.items():
            for row in curves[group][written[group] :]:
                values = [
                    Summary.Value(tag=f"{prefix}/{name}", simple_value=value)
                    for name, value in row.items()
                    if name != "step"
                ]
                event = Event(
                    wall_time=time.time(), step=int(row["step"]), summary=Summary(value=values)
                )
                writer.write(event.SerializeToString())
            written[group] = len(curves[group])

    with file:
        yield append
