# SPDX-License-Identifier: Apache-2.0
"""gcp-storage-emulator in this process, made to enforce what Google documents of preconditions.

Of what the real service does, the emulator by itself does not enforce:

- `ifGenerationMatch` on uploads, deletes and downloads (added here: 412 where it is not met)
- `generation` on downloads: it serves the object's present content (added here: 404)
- `ifGenerationNotMatch`, `ifMetagenerationMatch`, `ifMetagenerationNotMatch` (not used by us)
- credentials and permissions: everyone may do everything (401 and 403 are scripted by `fail`)
- limits: one update of an object a second, quotas, 429 (scripted by `fail`)
- several requests at once: it answers one after the other, so that no two writes ever overlap

and it keeps no noncurrent versions. References: cloud.google.com/storage/docs/request-preconditions
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from socketserver import BaseServer
from typing import Any

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound

BUCKET = "ieg"
BEFORE, AFTER = "before", "after"


@dataclass
class Emulator:
    """A running emulator.

    Attributes:
      host: For STORAGE_EMULATOR_HOST.
      requests: What it was asked: method and path.
      failures: Statuses to answer the next requests with, the first first.
      on_request: Called with method and path before each request is served.
      weather: Draws a fault for a method and path: a status instead of the right answer, BEFORE or
        AFTER for a connection that breaks before or after the request is carried out, or None.
    """

    host: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    failures: list[HTTPStatus] = field(default_factory=list)
    on_request: Callable[[str, str], None] = lambda method, path: None
    weather: Callable[[str, str], HTTPStatus | str | None] = lambda method, path: None


def _object_name(request: Any, storage: Any) -> str:
    if "upload_id" in request.query:
        return storage.get_resumable_file_obj(request.query["upload_id"][0])["name"]
    if "object_id" in request.params:
        return request.params["object_id"]
    if "name" in request.query:
        return request.query["name"][0]
    data = request.data  # a multipart upload names it inside
    return data["meta"]["name"] if isinstance(data, dict) and "meta" in data else data["name"]


def _refusal(request: Any, storage: Any) -> HTTPStatus | None:
    """Returns the status that refuses a request, or None."""
    asked = request.query.get("ifGenerationMatch", [None])[0]
    version = request.query.get("generation", [None])[0]
    if asked is None and version is None:
        return None
    try:
        present = storage.get_file_obj(
            request.params["bucket_name"], _object_name(request, storage)
        )
        generation = present["generation"]
    except NotFound:
        generation = "0"
    if version is not None and version != generation:
        return HTTPStatus.NOT_FOUND
    if asked is not None and asked != generation:
        missing = request.method == "GET" and generation == "0"
        return HTTPStatus.NOT_FOUND if missing else HTTPStatus.PRECONDITION_FAILED
    return None


def _enforcing(emulator: Emulator, handler: Callable[..., None]) -> Callable[..., None]:
    def handle(request: Any, response: Any, storage: Any) -> None:
        _ = request.data  # a body that is not read would be taken for the next request
        emulator.on_request(request.method, request.path)
        emulator.requests.append((request.method, request.path))
        # The library asks for the bucket itself now and then, in a thread, and minds no answer.
        refusal: HTTPStatus | str | None = None
        if not request.path.endswith(f"/b/{BUCKET}"):
            scripted, draw = emulator.failures, emulator.weather
            refusal = scripted.pop(0) if scripted else draw(request.method, request.path)
        if refusal == BEFORE:
            raise ConnectionResetError
        is_lost = refusal == AFTER
        if refusal is None or is_lost:
            refusal = _refusal(request, storage)
        if refusal is None:
            handler(request, response, storage)
        else:
            response.status = refusal
            response.json({"error": {"code": refusal.value, "message": refusal.phrase}})
        if is_lost:
            raise ConnectionResetError

    return handle


@contextlib.contextmanager
def serve() -> Iterator[Emulator]:
    """Runs an emulator with one bucket, "ieg"."""
    emulator = Emulator("")
    plain = server.HANDLERS
    # The emulator's server looks only twice a second whether it is to end.
    waits, BaseServer.serve_forever.__defaults__ = BaseServer.serve_forever.__defaults__, (0.01,)
    server.HANDLERS = tuple(
        (pattern, {method: _enforcing(emulator, handler) for method, handler in methods.items()})
        for pattern, methods in plain
    )
    running = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    running.start()
    running._api._httpd.handle_error = lambda *arguments: None  # a connection that weather breaks
    emulator.host = f"http://127.0.0.1:{running._api._httpd.server_port}"
    try:
        yield emulator
    finally:
        running.stop()
        server.HANDLERS = plain
        BaseServer.serve_forever.__defaults__ = waits
