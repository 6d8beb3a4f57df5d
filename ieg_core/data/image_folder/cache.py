# SPDX-License-Identifier: Apache-2.0
"""What has been read of a data directory, kept beside it in `.ieg-cache/`.

`index.json` has, for each file, its size, time of change, SHA-256 and, where it was looked at, why
it cannot be decoded. A file whose size and time are unchanged is not read again, as with make or
git. `images-<key>.safetensors` holds decoded images; the key is made of the contents' digests and
of how they are decoded, so that it fits no other content. Files are written to a temporary name
and renamed; where the directory cannot be written to, everything is read anew each time.
"""

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ieg_core.data.image_folder.decode import (
    Pixels,
    UnreadableImageError,
    central_square,
    read_pixels,
    reader_of,
)
from ieg_core.errors import UserError
from ieg_core.host.files import write_bytes_atomic
from ieg_core.host.machine import usable_cores

FOLDER: Final = ".ieg-cache"
FORMAT: Final = 1
"""Of the cache and of the rules of decoding: another number, and nothing old is used."""

_INDEX: Final = "index.json"
_BLOCK: Final = 256
_HEAD: Final = 16
_LARGEST: Final = 1 << 30

T = TypeVar("T")
R = TypeVar("R")


class Entry(NamedTuple):
    """What is known of one file.

    Attributes:
      size: Bytes.
      changed: Time of change in nanoseconds.
      sha256: Of its content; "" if it could not be read.
      reason: Why it cannot be decoded; "" if it can be; None if nobody has looked.
    """

    size: int
    changed: int
    sha256: str
    reason: str | None


def in_parallel(work: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
    """Maps over items in order, on as many threads as there are cores; a block at a time.

    Decoders release Python's lock. Blocks bound what waits: an executor's map submits everything.
    """
    with ThreadPoolExecutor(usable_cores(), "decode") as pool:
        for start in range(0, len(items), _BLOCK):
            yield from pool.map(work, items[start : start + _BLOCK])


def index_files(
    root: Path, paths: Sequence[str], max_megapixels: float, *, decode: bool
) -> dict[str, Entry]:
    """Reads all files once, those that did not change since not at all.

    Args:
      root: The data directory.
      paths: The files, relative to it.
      max_megapixels: An image of more counts as one that cannot be decoded.
      decode: Whether to find out which ones can be decoded; else their digests will do.

    Returns:
      An entry for each path.
    """
    # What cannot be decoded depends on the limit, so that each has an index of its own.
    name = f"{max_megapixels:g}-{_INDEX}"
    known = _read_index(root / FOLDER / name)

    def examine(path: str) -> Entry:
        try:
            found = os.stat(root / path)
            old = known.get(path)
            unchanged = old and (old.size, old.changed) == (found.st_size, found.st_mtime_ns)
            if old and unchanged and (old.reason is not None or not decode):
                return old
            content = read_file(root / path)
        except OSError as error:
            return Entry(0, 0, "", (error.strerror or "it cannot be read").lower())
        reason = _why_unreadable(content, max_megapixels) if decode else None
        sha256 = hashlib.sha256(content).hexdigest()
        return Entry(found.st_size, found.st_mtime_ns, sha256, reason)

    entries = dict(zip(paths, in_parallel(examine, paths), strict=True))
    if any(known.get(path) != entry for path, entry in entries.items()):
        kept = {path: entry for path, entry in {**known, **entries}.items() if entry.sha256}
        text = json.dumps({"format": FORMAT, "files": kept}, separators=(",", ":"))
        _write(root / FOLDER / name, text.encode())
    return entries


def decoded_images(
    root: Path,
    paths: Sequence[str],
    entries: Mapping[str, Entry],
    size: int,
    channels: int,
    max_megapixels: float,
) -> tuple[Pixels, dict[str, str]]:
    """Returns all images at one small size, from the cache if it has them.

    Args:
      root: The data directory.
      paths: The files, relative to it.
      entries: What `index_files` found.
      size: Side in pixels.
      channels: 3 or 1.
      max_megapixels: An image of more is not decoded.

    Returns:
      uint8 [n, size, size, channels] of the readable files in their order, and for each of the
      others the reason.
    """
    key = _key(size, channels, max_megapixels, [entries[path].sha256 for path in paths])
    cached = root / FOLDER / f"images-{size}x{channels}-{key}.safetensors"
    with contextlib.suppress(OSError, SafetensorError, KeyError, ValueError):
        with safetensors.safe_open(cached, framework="numpy") as file:
            reasons = json.loads(file.metadata()["reasons"])
            images = file.get_tensor("images")
        if images.shape == (len(paths) - len(reasons), size, size, channels):
            return images, {paths[int(number)]: reason for number, reason in reasons.items()}

    def decode(path: str) -> Pixels | str:
        try:
            content = read_file(root / path)
            return read_pixels(
                content,
                size,
                central_square,
                channels=channels,
                max_megapixels=max_megapixels,
            )
        except OSError as error:
            return (error.strerror or "it cannot be read").lower()
        except UnreadableImageError as error:
            return str(error)

    images = np.empty((len(paths), size, size, channels), np.uint8)
    found: dict[int, str] = {}
    readable = 0
    for number, result in enumerate(in_parallel(decode, paths)):
        if isinstance(result, str):
            found[number] = result
        else:
            images[readable] = result
            readable += 1
    images = images[:readable]
    for stale in (root / FOLDER).glob(f"images-{size}x{channels}-*.safetensors"):
        with contextlib.suppress(OSError):
            stale.unlink()
    metadata = {"reasons": json.dumps(found)}
    _write(cached, safetensors.numpy.save({"images": images}, metadata=metadata))
    return images, {paths[number]: reason for number, reason in found.items()}


def read_file(path: Path) -> bytes:
    """Reads a file; a pipe, which one would wait for, is none.

    Returns:
      Its content; of what begins like no image, such as a film of many gigabytes, the first bytes.

    Raises:
      OSError: It is none, cannot be read, or is larger than any image is.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if reader_of(head) is None:
            return head
        if found.st_size > _LARGEST:
            raise OSError(
                errno.EFBIG, f"its {found.st_size // 10**6:,} megabytes are more than an image's"
            )
        return head + file.read()


def _why_unreadable(content: bytes, max_megapixels: float) -> str:
    try:
        read_pixels(content, 8, lambda width, height: (0, 0, width, height),
                    max_megapixels=max_megapixels)  # fmt: skip
    except UnreadableImageError as error:
        return str(error)
    return ""


def _key(size: int, channels: int, max_megapixels: float, digests: Sequence[str]) -> str:
    text = f"{FORMAT} {size} {channels} {max_megapixels:g}\n" + "\n".join(digests)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_index(path: Path) -> dict[str, Entry]:
    try:
        read: Any = json.loads(path.read_bytes())
        if read["format"] == FORMAT:
            return {name: Entry(*entry) for name, entry in read["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # none, or damaged: everything is looked at again
    return {}


def _write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; a directory that cannot be written to gets none."""
    with contextlib.suppress(UserError, OSError):
        write_bytes_atomic(path, content)
