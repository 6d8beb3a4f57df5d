# SPDX-License-Identifier: Apache-2.0
"""Files in a bucket of Google Cloud Storage, named by URLs such as gs://bucket/folder/file.

Transfers run in parallel; large files are sent in chunks that are retried one by one. Both sides
check the CRC32C of every object. A write may name the generation that it replaces (0: none). If two
writers name the same one, the second gets a StaleWriterError.
"""

import base64
import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from ieg_core.errors import UserError
from ieg_core.host.files import writable
from ieg_core.store.gcs_client import SCHEME, errors_in_words, open_client, require_library

THREADS = 8
CHUNK = 8 * 1024**2
"""Bytes per upload request or read; larger files are uploaded resumably."""
TIMEOUT = 60.0
"""Seconds without an answer after which a request is retried."""
DEADLINE = 300.0
"""Seconds after which a request is not retried."""
DOWNLOADS = 3
"""The most downloads of an object that arrives damaged."""

T = TypeVar("T")


class StaleWriterError(RuntimeError):
    """Another writer has replaced the object that this writer was going to replace."""


@dataclass(frozen=True)
class Stored:
    """An object in a bucket.

    Attributes:
      generation: Changes with every write; the first is above 0.
      size: Bytes.
      crc32c: Checksum, base64 of big-endian bytes.
      updated: Unix time of the last write, by the server's clock.
    """

    generation: int
    size: int
    crc32c: str
    updated: float


def is_url(place: str) -> bool:
    """Returns whether a results root is in a bucket."""
    return str(place).startswith(SCHEME)


def join(url: str, name: str) -> str:
    """Returns the URL of a file under another URL."""
    return f"{url.rstrip('/')}/{name}"


def split(url: str) -> tuple[str, str]:
    """Splits a URL into its bucket and the rest.

    Raises:
      UserError: When it names no bucket.
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
      prefix: Lists only names, relative to `url`, that begin with this.

    Returns:
      The objects by their names relative to `url`.
    """
    bucket, folder = split(url)
    start = f"{folder}/" if folder else ""
    with errors_in_words(url, missing_is_bucket=True):
        blobs = open_client().list_blobs(
            bucket, prefix=start + prefix, retry=_retry(), timeout=TIMEOUT
        )
        # Google's console and FUSE file systems create empty objects for folders.
        files = (blob for blob in blobs if not blob.name.endswith("/"))
        return {blob.name.removeprefix(start): _stored(blob) for blob in files}


def read(url: str) -> tuple[bytes, int] | None:
    """Returns the content and the generation of an object; None if it does not exist."""
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
        with contextlib.suppress(FileNotFoundError):  # replaced since: read the new generation
            _fetch(url, stored, file)
            return file.getvalue(), stored.generation


def write(url: str, data: bytes, generation: int | None = None) -> int:
    """Writes one object.

    Args:
      url: The object's URL.
      data: Its content.
      generation: The generation to replace, 0 for a new object; None replaces any generation.

    Returns:
      The new generation.

    Raises:
      StaleWriterError: When the object has another generation.
    """
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return _send(url, file, generation)


def download(url: str, names: Mapping[str, Stored], folder: Path) -> None:
    """Copies objects to a folder, in parallel; readers never see a partial file.

    Args:
      url: gs://bucket/folder.
      names: The objects, from `list_files`.
      folder: The folder to write to; an object's name is its path there.

    Raises:
      FileNotFoundError: When an object was deleted or replaced since: list them again.
      UserError: When the bucket cannot be read, or an object arrives damaged every time.
    """

    def one(name: str) -> None:
        _receive(join(url, name), names[name], folder / name)

    side_by_side(one, names)


def upload(
    url: str, folder: Path, names: Iterable[str], generations: Mapping[str, int | None]
) -> dict[str, int]:
    """Copies files to a bucket, in parallel.

    Args:
      url: gs://bucket/folder.
      folder: The folder of the files.
      names: Their names, relative to both.
      generations: For each name, the generation to replace; see `write`.

    Returns:
      The new generations.

    Raises:
      StaleWriterError: When an object has another generation. Others may have been written.
    """

    def one(name: str) -> tuple[str, int]:
        with (folder / name).open("rb") as file:
            return name, _send(join(url, name), file, generations[name])

    return dict(side_by_side(one, names))


def delete(url: str, names: Mapping[str, int | None] | Iterable[str]) -> None:
    """Deletes objects; skips those that do not exist or have another generation.

    Args:
      url: gs://bucket/folder.
      names: Names relative to `url`; as a mapping, with the generation to delete (None: any).
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    generations = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)

    def one(name: str) -> None:
        where = join(url, name)
        with errors_in_words(where), contextlib.suppress(NotFound, PreconditionFailed):
            _blob(where).delete(
                if_generation_match=generations[name], retry=_retry(), timeout=TIMEOUT
            )

    side_by_side(one, generations)


def side_by_side(work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """Calls a function for each name, in threads; returns the results in order."""
    with ThreadPoolExecutor(THREADS, "storage") as pool:
        return list(pool.map(work, names))


def _send(url: str, file: IO[bytes], generation: int | None) -> int:
    """Uploads the current content of an open file; a log may grow during the upload."""
    require_library()
    from google.api_core.exceptions import PreconditionFailed
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
            # The object may be ours: if an answer is lost, the library repeats the request.
            with contextlib.suppress(Exception):
                blob.reload(retry=_retry(), timeout=TIMEOUT)
            if (blob.size, blob.crc32c) != (size, crc32c):
                raise StaleWriterError(f"{url} is no longer generation {generation}") from error
        except DataCorruption as error:
            raise _corrupt(url, crc32c, "another") from error
    if blob.crc32c != crc32c:
        raise _corrupt(url, crc32c, blob.crc32c)
    return int(blob.generation)


def _fetch(url: str, stored: Stored, file: IO[bytes]) -> None:
    """Downloads one generation of an object to an open file; retries if it arrives damaged.

    Raises:
      FileNotFoundError: When the object was replaced or deleted.
      UserError: When it arrives damaged every time.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed
    from google.cloud.storage.exceptions import DataCorruption

    checksum = ""
    for _ in range(DOWNLOADS):
        file.seek(0)
        file.truncate()
        with errors_in_words(url):
            try:
                _blob(url).download_to_file(
                    file,
                    checksum="crc32c",
                    if_generation_match=stored.generation,
                    retry=_retry(),
                    timeout=TIMEOUT,
                )
                checksum = _checksum(file, file.tell())
            except DataCorruption:
                checksum = "another"
            except (NotFound, PreconditionFailed) as error:
                raise FileNotFoundError(f"{url} was replaced or deleted") from error
        if checksum == stored.crc32c:
            return
    raise _corrupt(url, stored.crc32c, checksum)


def _receive(url: str, stored: Stored, path: Path) -> None:
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w+b") as file:
            _fetch(url, stored, file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _checksum(file: IO[bytes], size: int) -> str:
    import google_crc32c

    checksum, left = google_crc32c.Checksum(), size
    file.seek(0)
    while left > 0 and (part := file.read(min(left, CHUNK))):
        checksum.update(part)
        left -= len(part)
    return base64.b64encode(checksum.digest()).decode()


def _corrupt(url: str, expected: str, found: str) -> UserError:
    return UserError(
        f"{url} was damaged on its way: expected CRC32C {expected}, got {found}; run again"
    )


def _stored(blob: Any) -> Stored:
    return Stored(int(blob.generation), int(blob.size), blob.crc32c, blob.updated.timestamp())


def _blob(url: str) -> Any:
    bucket, name = split(url)
    return open_client().bucket(bucket).blob(name)


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(DEADLINE)
