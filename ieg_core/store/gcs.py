# SPDX-License-Identifier: Apache-2.0
"""Files in a Google Cloud Storage bucket, addressed by URLs such as gs://bucket/folder/file.

Transfers run in parallel. Large files are transferred in chunks that are retried individually, and
both sides verify the CRC32C of every file. A write may name the generation that it replaces (0 if
the object must not exist): one of two concurrent writers then wins, and the other one gets a
StaleWriterError.
"""

import base64
import contextlib
import contextvars
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from ieg_core.errors import UserError
from ieg_core.host.files import replacing, writable
from ieg_core.store.gcs_client import SCHEME, errors_in_words, open_client, require_library

THREADS = 8
CHUNK = 8 * 1024**2
"""Bytes per upload request and per read; larger files are uploaded resumably."""
TIMEOUT = 60.0
"""Seconds without a response after which a request is retried."""
DEADLINE = 300.0
"""Seconds after which a request is no longer retried, unless `deadline` sets others."""
DOWNLOADS = 3
"""Maximum number of downloads of an object that arrives damaged."""

T = TypeVar("T")


class StaleWriterError(RuntimeError):
    """The object is not the generation that this writer expected to replace."""


@dataclass(frozen=True)
class Stored:
    """An object in a bucket.

    Attributes:
      generation: Changes with every write; always above 0.
      size: Size in bytes.
      crc32c: CRC32C checksum, base64 of its big-endian bytes.
      updated: Time of the last write, Unix seconds by the server's clock.
    """

    generation: int
    size: int
    crc32c: str
    updated: float


_deadline = contextvars.ContextVar("deadline", default=DEADLINE)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Sets how long this thread's requests are retried, for someone who waits for the answer."""
    token = _deadline.set(seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def is_url(place: str) -> bool:
    """Returns whether a results root is in a bucket."""
    return str(place).startswith(SCHEME)


def join(url: str, name: str) -> str:
    """Returns the URL of a file under another URL."""
    return f"{url.rstrip('/')}/{name}"


def split(url: str) -> tuple[str, str]:
    """Splits a URL into its bucket and the name of the object.

    Raises:
      UserError: When the URL does not name a bucket, or the extra `gcs` is not installed.
    """
    require_library()
    bucket, _, name = url.removeprefix(SCHEME).partition("/")
    if not is_url(url) or not bucket:
        raise UserError(f"expected gs://bucket/folder, got {url!r}")
    return bucket, name.rstrip("/")


def list_files(url: str, prefix: str = "") -> dict[str, Stored]:
    """Lists the objects under a URL.

    Args:
      url: gs://bucket/folder.
      prefix: Lists only objects whose names, relative to `url`, start with it.

    Returns:
      The objects by their names relative to `url`.

    Raises:
      UserError: When the bucket does not exist or cannot be read.
    """
    bucket, folder = split(url)
    start = f"{folder}/" if folder else ""
    with errors_in_words(url, missing_is_bucket=True):
        blobs = open_client().list_blobs(
            bucket, prefix=start + prefix, retry=_retry(), timeout=TIMEOUT
        )
        # Google's console and FUSE file systems create empty objects that stand for folders.
        files = (blob for blob in blobs if not blob.name.endswith("/"))
        return {blob.name.removeprefix(start): _stored(blob) for blob in files}


def read(url: str) -> tuple[bytes, int] | None:
    """Reads an object: its contents and generation; None if it does not exist."""
    require_library()
    from google.api_core.exceptions import NotFound

    while True:
        blob = _blob(url)
        with errors_in_words(url):
            try:
                blob.reload(retry=_retry(), timeout=TIMEOUT)
            except NotFound:
                return None
        stored, file = _stored(blob), io.BytesIO()
        with contextlib.suppress(FileNotFoundError):  # replaced or deleted in between
            _receive(url, stored, file)
            return file.getvalue(), stored.generation


def write(url: str, data: bytes, generation: int | None = None) -> int:
    """Writes an object.

    Args:
      url: URL of the object.
      data: Its contents.
      generation: The generation to replace, 0 if the object must not exist; None replaces any.

    Returns:
      The new generation.

    Raises:
      StaleWriterError: When the object has another generation.
      UserError: When the bucket cannot be written.
    """
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return _send(url, file, generation)


def download(url: str, names: Mapping[str, Stored], folder: Path) -> None:
    """Downloads objects to a folder in parallel; each file appears complete or not at all.

    Args:
      url: gs://bucket/folder.
      names: The objects to download, as returned by `list_files`.
      folder: The folder to write to; a file's path in it is the object's name.

    Raises:
      FileNotFoundError: When an object was deleted or replaced after it was listed.
      UserError: When the bucket cannot be read, or a file arrives damaged every time.
    """

    def one(name: str) -> None:
        path = folder / name
        with writable(path.parent), replacing(path) as temporary, temporary.open("w+b") as file:
            _receive(join(url, name), names[name], file)

    side_by_side(one, names)


def upload(
    url: str, folder: Path, names: Iterable[str], generations: Mapping[str, int | None]
) -> dict[str, int]:
    """Uploads files to a bucket in parallel.

    Args:
      url: gs://bucket/folder.
      folder: The folder that holds the files.
      names: Their names, relative to `url` and to `folder`.
      generations: The generation that each name replaces, see `write`; must have every name.

    Returns:
      The new generations by name.

    Raises:
      StaleWriterError: When an object has another generation; the others may have been written.
      UserError: When the bucket cannot be written.
    """

    def one(name: str) -> tuple[str, int]:
        with (folder / name).open("rb") as file:
            return name, _send(join(url, name), file, generations[name])

    return dict(side_by_side(one, names))


def delete(url: str, names: Mapping[str, int | None] | Iterable[str]) -> None:
    """Deletes objects; ignores those that do not exist or have another generation.

    Args:
      url: gs://bucket/folder.
      names: Names relative to `url`; a mapping also gives the generation to delete, None for any.

    Raises:
      UserError: When the bucket cannot be written.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    generations = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)

    def one(name: str) -> None:
        blob = _blob(join(url, name))
        with errors_in_words(join(url, name)), contextlib.suppress(NotFound, PreconditionFailed):
            blob.delete(if_generation_match=generations[name], retry=_retry(), timeout=TIMEOUT)

    side_by_side(one, generations)


def side_by_side(work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """Runs a function on each name in threads; returns the results in order."""
    with ThreadPoolExecutor(THREADS, "storage") as pool:
        return list(pool.map(work, names))


def _send(url: str, file: IO[bytes], generation: int | None) -> int:
    """Uploads the current contents of an open file; a log may grow during the upload."""
    require_library()
    from google.api_core.exceptions import NotFound, PreconditionFailed
    from google.cloud.storage.exceptions import DataCorruption

    size = file.seek(0, os.SEEK_END)
    crc32c = _checksum(file, size)
    blob = _blob(url)
    if size > CHUNK:
        blob.chunk_size = CHUNK
    file.seek(0)
    with errors_in_words(url, missing_is_bucket=True):
        try:
            blob.upload_from_file(
                file,
                size=size,
                content_type="application/octet-stream",
                checksum="crc32c",
                if_generation_match=generation,
                retry=_retry(),
                timeout=TIMEOUT,
            )
        except PreconditionFailed as error:
            # Written by this process, if the response was lost and the library retried.
            with contextlib.suppress(NotFound):
                blob.reload(retry=_retry(), timeout=TIMEOUT)
            if (blob.size, blob.crc32c) != (size, crc32c):
                raise StaleWriterError(f"{url} is no longer generation {generation}") from error
        except DataCorruption as error:
            raise _corrupt(url, crc32c, "a different one") from error
    if blob.crc32c != crc32c:
        raise _corrupt(url, crc32c, blob.crc32c)
    return int(blob.generation)


def _receive(url: str, stored: Stored, file: IO[bytes]) -> None:
    """Downloads an object into an open file; raises FileNotFoundError if it was replaced."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    received = ""
    for _ in range(DOWNLOADS):
        file.seek(0)
        file.truncate()
        with errors_in_words(url):
            try:
                # Verified below: the library would fail on the first damaged download.
                _blob(url).download_to_file(
                    file,
                    checksum=None,
                    if_generation_match=stored.generation,
                    retry=_retry(),
                    timeout=TIMEOUT,
                )
            except (NotFound, PreconditionFailed) as error:
                raise FileNotFoundError(f"{url} was replaced or deleted") from error
        received = _checksum(file, file.tell())
        if received == stored.crc32c:
            return
    raise _corrupt(url, stored.crc32c, received)


def _checksum(file: IO[bytes], size: int) -> str:
    import google_crc32c

    checksum, left = google_crc32c.Checksum(), size
    file.seek(0)
    while left > 0 and (part := file.read(min(left, CHUNK))):
        checksum.update(part)
        left -= len(part)
    return base64.b64encode(checksum.digest()).decode()


def _corrupt(url: str, expected: str, received: str) -> UserError:
    return UserError(
        f"{url} was damaged in transfer: received CRC32C {received}, expected {expected}; run again"
    )


def _stored(blob: Any) -> Stored:
    return Stored(int(blob.generation), int(blob.size), blob.crc32c, blob.updated.timestamp())


def _blob(url: str) -> Any:
    bucket, name = split(url)
    return open_client().bucket(bucket).blob(name)


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_deadline.get())
