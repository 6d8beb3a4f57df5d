# SPDX-License-Identifier: Apache-2.0
"""Files in a bucket of Google Cloud Storage, named by URLs such as gs://bucket/folder/file.

Transfers run side by side, large files in chunks that are tried again one by one; every byte is
checked by its CRC32C on both sides. A write may name the generation that it replaces (0: none):
then of two writers one wins, and the other learns it by StaleWriterError.
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
"""Bytes of one request of an upload or of one read; larger files go up resumably."""
TIMEOUT = 60.0
"""Seconds without an answer after which a request is tried again."""
DEADLINE = 300.0
"""Seconds after which a request is tried no more."""
DOWNLOADS = 3
"""How often an object that comes damaged is asked for."""

T = TypeVar("T")


class StaleWriterError(RuntimeError):
    """The object is no longer the one that this writer meant to replace."""


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
    """Returns whether a results root lies in a bucket."""
    return str(place).startswith(SCHEME)


def join(url: str, name: str) -> str:
    """Returns the URL of a file under another URL."""
    return f"{url.rstrip('/')}/{name}"


def split(url: str) -> tuple[str, str]:
    """Splits a URL into its bucket and the rest.

    Raises:
      UserError: It names no bucket.
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
      prefix: Only those whose names, relative to `url`, begin so.

    Returns:
      What is known of each, by its name relative to `url`.
    """
    bucket, folder = split(url)
    start = f"{folder}/" if folder else ""
    with errors_in_words(url, missing_is_bucket=True):
        blobs = open_client().list_blobs(
            bucket, prefix=start + prefix, retry=_retry(), timeout=TIMEOUT
        )
        # Google's console and file systems over a bucket keep empty objects for folders.
        files = (blob for blob in blobs if not blob.name.endswith("/"))
        return {blob.name.removeprefix(start): _stored(blob) for blob in files}


def read(url: str) -> tuple[bytes, int] | None:
    """Reads one object: its content and generation; None where there is none."""
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
    """Writes one object whole.

    Args:
      url: Where.
      data: Its content.
      generation: The one to replace, 0 for none; None replaces whatever is there.

    Returns:
      The new generation.

    Raises:
      StaleWriterError: The object there is another one.
    """
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return _send(url, file, generation)


def download(url: str, names: Mapping[str, Stored], folder: Path) -> None:
    """Copies objects to a folder, side by side; each file appears whole or not at all.

    Args:
      url: gs://bucket/folder.
      names: What to copy, as `list_files` told it.
      folder: Where; a file's place in it is its name.

    Raises:
      FileNotFoundError: One of them is gone or was replaced since: list them again.
      UserError: The bucket cannot be read, or a file came damaged more than once.
    """

    def one(name: str) -> None:
        _receive(join(url, name), names[name], folder / name)

    side_by_side(one, names)


def upload(
    url: str, folder: Path, names: Iterable[str], generations: Mapping[str, int | None]
) -> dict[str, int]:
    """Copies files to a bucket, side by side.

    Args:
      url: gs://bucket/folder.
      folder: Where they lie.
      names: Their names, relative to both.
      generations: The objects that they replace, see `write`; all names must be there.

    Returns:
      The new generations.

    Raises:
      StaleWriterError: One of the objects is another one. The rest may have been written.
    """

    def one(name: str) -> tuple[str, int]:
        with (folder / name).open("rb") as file:
            return name, _send(join(url, name), file, generations[name])

    return dict(side_by_side(one, names))


def delete(url: str, names: Mapping[str, int | None] | Iterable[str]) -> None:
    """Deletes objects; those that are gone already, or are another generation, are left alone.

    Args:
      url: gs://bucket/folder.
      names: Names relative to `url`, with the generation meant where it matters.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    wanted = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)

    def one(name: str) -> None:
        where = join(url, name)
        with errors_in_words(where), contextlib.suppress(NotFound, PreconditionFailed):
            _blob(where).delete(if_generation_match=wanted[name], retry=_retry(), timeout=TIMEOUT)

    side_by_side(one, wanted)


def side_by_side(work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """Does some work for each name in threads; returns the outcomes in order."""
    with ThreadPoolExecutor(THREADS, "storage") as pool:
        return list(pool.map(work, names))


def _send(url: str, file: IO[bytes], generation: int | None) -> int:
    """Uploads what an open file holds now: a log may grow meanwhile."""
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
            # Ours, if an answer was lost and the library asked again.
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
    """Downloads one generation of an object to an open file, again if it comes damaged.

    Raises:
      FileNotFoundError: When the object was replaced or deleted.
      UserError: When it came damaged each time.
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
        f"{url} was damaged on its way: expected CRC32C {expected}, found {found}; run again"
    )


def _stored(blob: Any) -> Stored:
    return Stored(int(blob.generation), int(blob.size), blob.crc32c, blob.updated.timestamp())


def _blob(url: str) -> Any:
    bucket, name = split(url)
    return open_client().bucket(bucket).blob(name)


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(DEADLINE)
