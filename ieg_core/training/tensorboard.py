# SPDX-License-Identifier: Apache-2.0
"""A run's curves and pictures for TensorBoard: `tensorboard --logdir runs/trials`.

The event file is written with TensorBoard's record writer, without TensorFlow. A resumed run
rewrites the file: the scalars come from the checkpoint's curves, and the pictures up to the
checkpoint from the old file, so that no step appears twice.
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
      pictures: (tag, step) of each picture in the file.
    """

    pictures: set[tuple[str, int]]
    _writer: Any
    _written: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_GROUPS, 0))

    def add_curves(self, curves: Curves) -> None:
        """Appends the rows of the curves that are not in the file yet.

        Tags are "train/<name>" and "test/<name>"; steps are training steps.
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
          step: The training step that it belongs to.
          encoded: The contents of a PNG or JPEG file.
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
    """Opens a run's event file for the duration of a `with` block.

    Args:
      folder: The run's TensorBoard folder; created if missing.
      resumed_step: Step of the checkpoint that the run resumes from, 0 without one. Pictures in the
        old file up to this step are kept.

    Yields:
      The open file.

    Raises:
      UserError: When the folder is not writable.
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
    """Reads the serialized events that hold a picture up to a step, by (tag, step)."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    pictures: dict[tuple[str, int], bytes] = {}
    if not last or not path.exists():
        return pictures
    with path.open("rb") as file:
        for record in _records(file):
            try:
                event = Event.FromString(record)
            except DecodeError:
                break
            for value in event.summary.value:
                if value.HasField("image") and event.step <= last:
                    pictures[value.tag, event.step] = record
    return pictures


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the records of an event file up to the first damaged one.

    A record consists of its length (8 bytes), the checksum of the length (4), the data, and the
    checksum of the data (4).
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
