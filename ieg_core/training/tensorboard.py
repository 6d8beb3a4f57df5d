# SPDX-License-Identifier: Apache-2.0
"""A run's curves and pictures for TensorBoard: `tensorboard --logdir runs/trials`.

The event file is written through TensorBoard's own record writer, without TensorFlow. A run starts
it anew: the scalars come from its checkpoint's curves, the pictures from the old file up to the
checkpoint, so that a resumed run shows no step twice.
"""

import contextlib
import io
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image

from ieg_core.host.files import writable

Curves = Mapping[str, Sequence[Mapping[str, float]]]

FILE_NAME = "events.out.tfevents.0.ieg"
_GROUPS = {"training": "train", "evaluations": "test"}


@dataclass
class EventLog:
    """A run's open event file.

    Attributes:
      pictures: (tag, step) of the pictures in it.
    """

    pictures: set[tuple[str, int]]
    _writer: Any
    _written: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_GROUPS, 0))

    def add_curves(self, curves: Curves) -> None:
        """Appends those rows of the curves that are not written yet.

        The tags are "train/…" and "test/…" followed by the curve's name, the steps are training
        steps.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        for group, prefix in _GROUPS.items():
            for row in curves[group][self._written[group] :]:
                values = [
                    Summary.Value(tag=f"{prefix}/{name}", simple_value=value)
                    for name, value in row.items()
                    if name != "step"
                ]
                self._add(int(row["step"]), values)
            self._written[group] = len(curves[group])

    def add_picture(self, tag: str, step: int, encoded: bytes) -> None:
        """Appends a picture.

        Args:
          tag: Its name in TensorBoard.
          step: The training step that it shows.
          encoded: A PNG or JPEG file.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(io.BytesIO(encoded)) as opened:
            width, height = opened.size
        image = Summary.Image(
            width=width, height=height, colorspace=3, encoded_image_string=encoded
        )
        self._add(step, [Summary.Value(tag=tag, image=image)])
        self.pictures.add((tag, step))

    def _add(self, step: int, values: Sequence[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._writer.write(event.SerializeToString())


@contextlib.contextmanager
def open_events(folder: Path, resumed_step: int) -> Iterator[EventLog]:
    """Holds a run's event file open.

    Args:
      folder: The run's TensorBoard folder, made if need be.
      resumed_step: Steps in the checkpoint that the run goes on from, 0 without one. Pictures of
        the old file up to it are kept.

    Raises:
      UserError: The folder cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        kept = _pictures(folder / FILE_NAME, resumed_step)
        file = (folder / FILE_NAME).open("wb", buffering=0)
    writer = RecordWriter(file)
    writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    for record in kept.values():
        writer.write(record)
    with file:
        yield EventLog(set(kept), writer)


def _pictures(path: Path, last: int) -> dict[tuple[str, int], bytes]:
    """Reads the events with a picture up to a step, as they were serialised, by (tag, step)."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    found: dict[tuple[str, int], bytes] = {}
    if not last or not path.exists():
        return found
    with path.open("rb") as file:
        for record in _records(file):
            try:
                event = Event.FromString(record)
            except DecodeError:
                break
            for value in event.summary.value:
                if value.HasField("image") and event.step <= last:
                    found[value.tag, event.step] = record
    return found


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the records of an event file up to its end, or to the first that is damaged.

    A record is its length (8 bytes), the length's checksum (4), the data, and their checksum (4).
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    while len(head := file.read(12)) == 12:
        length, check = struct.unpack("<QI", head)
        if check != masked_crc32c(head[:8]):
            return
        record, end = file.read(length), file.read(4)
        if len(end) < 4 or struct.unpack("<I", end)[0] != masked_crc32c(record):
            return
        yield record
