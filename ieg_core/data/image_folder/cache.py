# SPDX-License-Identifier: Apache-2.0
"""A cache of a data directory's images, in its folder `.ieg-cache/`.

`<max_megapixels>-index.json` stores the size, modification time and SHA-256 of each file and, if it
has been decoded, why it cannot be. As with make or git, a file with unchanged size and time is not
read again. `images-<size>x<channels>-<key>.safetensors` holds decoded images; the key is a hash of
the contents' digests and of the decoding parameters, so it matches no other content. Files are
written to a temporary name and renamed. If the directory is not writable, everything is read again
each time.
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
from typing import Final, NamedTuple, TypeVar

import numpy as np

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
from ieg_core.store import arrays
from ieg_core.store import seal as sealed

FOLDER: Final = ".ieg-cache"
FORMAT: Final = 2
"""Version of the cache and of the decoding rules; a new number invalidates all older entries."""

_INDEX: Final = "index.json"
_BLOCK: Final = 256
_HEAD: Final = 16
_MAX_BYTES: Final = 1 << 30

T = TypeVar("T")
R = TypeVar("R")


class Entry(NamedTuple):
    """The cached facts about one file.

    Attributes:
      size: Size in bytes.
      changed: Modification time in nanoseconds.
      sha256: Digest of its content; "" if it could not be read.
      reason: Why it cannot be decoded; "" if it can be; None if decoding was not tried.
    """

    size: int
    changed: int
    sha256: str
    reason: str | None


def in_parallel(work: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
    """Maps over items in order, one block at a time, with one thread per core.

    Threads suffice, since decoders release Python's lock. Blocks bound the number of pending
    results, because an executor's `map` submits all items at once.

    Args:
      work: The function to apply.
      items: Its arguments.

    Yields:
      The results, in order.
    """
    with ThreadPoolExecutor(usable_cores(), "decode") as pool:
        for start in range(0, len(items), _BLOCK):
            yield from pool.map(work, items[start : start + _BLOCK])


def index_files(
    root: Path,
    paths: Sequence[str],
    max_megapixels: float,
    *,
    decode: bool,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Entry]:
    """Reads every file that is not in the index or has changed since.

    Args:
      root: The data directory.
      paths: The files, relative to it.
      max_megapixels: A larger image counts as one that cannot be decoded.
      decode: Whether to test which files can be decoded; otherwise only digests are computed.
      progress: Is told after each file how many are done.

    Returns:
      An entry for each path.
    """
    # Which files can be decoded depends on the limit, so each limit has its own index.
    name = f"{max_megapixels:g}-{_INDEX}"
    known = _read_index(root / FOLDER / name)

    def examine(path: str) -> Entry:
        try:
            status = os.stat(root / path)
            old = known.get(path)
            unchanged = old and (old.size, old.changed) == (status.st_size, status.st_mtime_ns)
            if old and unchanged and (old.reason is not None or not decode):
                return old
            content = read_file(root / path)
        except OSError as error:
            return Entry(0, 0, "", (error.strerror or "it cannot be read").lower())
        reason = _why_unreadable(content, max_megapixels) if decode else None
        sha256 = hashlib.sha256(content).hexdigest()
        return Entry(status.st_size, status.st_mtime_ns, sha256, reason)

    entries = {}
    for number, (path, entry) in enumerate(zip(paths, in_parallel(examine, paths), strict=True), 1):
        entries[path] = entry
        if progress:
            progress(number)
    if any(known.get(path) != entry for path, entry in entries.items()):
        readable = {path: entry for path, entry in {**known, **entries}.items() if entry.sha256}
        text = json.dumps(sealed.seal({"format": FORMAT, "files": readable}), separators=(",", ":"))
        with contextlib.suppress(UserError, OSError):  # not writable: read again each time
            write_bytes_atomic(root / FOLDER / name, text.encode())
    return entries


def decoded_images(
    root: Path,
    paths: Sequence[str],
    entries: Mapping[str, Entry],
    size: int,
    channels: int,
    max_megapixels: float,
) -> tuple[Pixels, dict[str, str]]:
    """Returns all images at one small size, from the cache if possible.

    Args:
      root: The data directory.
      paths: The files, relative to it.
      entries: The result of `index_files`.
      size: Side in pixels.
      channels: 3 or 1.
      max_megapixels: Larger images are not decoded.

    Returns:
      uint8 [n, size, size, channels] of the readable files in order, and the reason for each
      unreadable file, by path.
    """
    key = _key(size, channels, max_megapixels, [entries[path].sha256 for path in paths])
    cached = root / FOLDER / f"images-{size}x{channels}-{key}.safetensors"
    if known := arrays.read_cached(cached):
        reasons = known[1]["reasons"]
        return known[0]["images"], {paths[int(number)]: each for number, each in reasons.items()}

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
    reasons = {}
    readable = 0
    for number, result in enumerate(in_parallel(decode, paths)):
        if isinstance(result, str):
            reasons[number] = result
        else:
            images[readable] = result
            readable += 1
    images = images[:readable]
    for stale in (root / FOLDER).glob(f"images-{size}x{channels}-*.safetensors"):
        with contextlib.suppress(OSError):
            stale.unlink()
    arrays.write_cached(
        cached,
        {"images": images},
        {"reasons": {str(number): reason for number, reason in reasons.items()}},
    )
    return images, {paths[number]: reason for number, reason in reasons.items()}


def read_file(path: Path) -> bytes:
    """Reads an image file; refuses pipes, which would block.

    Returns:
      The content; only the first bytes if they are not those of an image, since such a file may be
      a video of many gigabytes.

    Raises:
      OSError: When it is not a regular file, cannot be read, or is larger than 1 GiB.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if reader_of(head) is None:
            return head
        if status.st_size > _MAX_BYTES:
            raise OSError(
                errno.EFBIG, f"its {status.st_size // 10**6:,} megabytes are too large for an image"
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
        read = sealed.unseal(sealed.parse_json(sealed.read_file(path, _MAX_BYTES)))
    except (OSError, ValueError):
        return {}  # missing or damaged: everything is read again
    if read["format"] != FORMAT:
        return {}
    return {name: Entry(*entry) for name, entry in read["files"].items()}
