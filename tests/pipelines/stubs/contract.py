# SPDX-License-Identifier: Apache-2.0
"""What the stubs share: strict reading of JSON by a generated client's models, and a small server.

The models of `kfp_server_api` and of the Kubernetes client carry the names, types and enumerations
of their API. `check` holds a body against them, nested objects included, more strictly than the
client's own reader, which drops what it does not know.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

PLAIN = {"str": str, "bool": bool, "int": int, "object": object}


GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13}
"""gRPC's code of an HTTP status: grpc-gateway, runtime/errors.go, HTTPStatusFromCode."""


class RefusedError(Exception):
    """An answer other than 200: what the API says about a wrong request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check(
    value: Any, kind: str, models: ModuleType, where: str, numbers_as_text: frozenset[str]
) -> None:
    """Refuses a JSON value that is not of a kind.

    Args:
      value: The value.
      kind: As the models write it: "str", "list[V1Node]", "dict(str, object)", "V2beta1Run".
      models: The generated package.
      where: The value's place, for the message.
      numbers_as_text: Names of 64-bit numbers: texts in JSON, for which a number is taken too.

    Raises:
      RefusedError: 400, unknown field, wrong type or wrong enumeration value.
    """
    if value is None:
        return
    if inner := re.fullmatch(r"list\[(.*)\]", kind):
        _require(isinstance(value, list), where, "a list", value)
        for position, item in enumerate(value):
            check(item, inner[1], models, f"{where}[{position}]", numbers_as_text)
    elif inner := re.fullmatch(r"dict\((?:str, ?)(.*)\)", kind):
        _require(isinstance(value, dict), where, "an object", value)
        for key, item in value.items():
            check(item, inner[1], models, f"{where}.{key}", numbers_as_text)
    elif kind in ("datetime", "date"):
        _require(isinstance(value, str) and _is_time(value), where, "an RFC 3339 time", value)
    elif kind == "float":
        _require(type(value) in (int, float), where, "a number", value)
    elif kind == "str" and where.rpartition(".")[2] in numbers_as_text:
        _require(re.fullmatch(r"-?\d+", str(value)) is not None, where, "a whole number", value)
    elif kind == "int":
        _require(type(value) is int, where, "a whole number", value)
    elif kind in PLAIN:
        _require(isinstance(value, PLAIN[kind]), where, f"a {kind}", value)
    else:
        _check_model(value, getattr(models, kind), models, where, numbers_as_text)


def _check_model(
    value: Any, model: Any, models: ModuleType, where: str, numbers_as_text: frozenset[str]
) -> None:
    if values := getattr(model, "allowable_values", None):
        _require(value in values, where, f"one of {', '.join(values)}", value)
        return
    _require(isinstance(value, dict), where, f"a {model.__name__}", value)
    kinds = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    for key, item in value.items():
        if key not in kinds:
            raise RefusedError(400, f"{where}: unknown field {key!r} of {model.__name__}")
        check(item, kinds[key], models, f"{where}.{key}", numbers_as_text)


def _require(condition: bool, where: str, expected: str, value: Any) -> None:
    if not condition:
        raise RefusedError(400, f"{where}: expected {expected}, got {value!r}")


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False


@dataclass(frozen=True)
class Request:
    """A request as the stub saw it.

    Attributes:
      method: "GET", "POST" …
      path: Without the query.
      query: The last value of each key.
      headers: With names in lower case.
      body: As sent.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise RefusedError(400, f"the body is not JSON: {self.body[:80]!r}") from None


@dataclass(frozen=True)
class Fault:
    """An answer scripted instead of the real one.

    Attributes:
      status: HTTP status; 200 with `body` for a page that is no API's.
      method: Only for this method; "" for all.
      path: Only for paths that match this regular expression.
      body: What is answered.
      content_type: Its type.
      delay: Seconds before anything is answered, or until the stub is closed; with status 0 the
        right answer follows.
      location: Where a 302 leads.
      retry_after: The header of that name; "" for none.
      breaks: Where the connection is reset: "before" the request is carried out, or "after" it, so
        that its answer is lost; "later": as "after", but it is carried out by the next request
        only that comes at least `late` seconds later.
      late: See `breaks`.
      times: How often, then the right answer again.
    """

    status: int = 500
    method: str = ""
    path: str = ""
    body: str = '{"error": "scripted", "code": 13, "message": "scripted failure"}'
    content_type: str = "application/json"
    delay: float = 0.0
    location: str = ""
    retry_after: str = ""
    breaks: str = ""
    late: float = 0.0
    times: int = 1_000_000

    def fits(self, request: Request) -> bool:
        """Returns whether a request meets this fault."""
        return self.method in ("", request.method) and bool(re.search(self.path, request.path))


@dataclass
class Stub:
    """A server in this process, answering by `answer`.

    Attributes:
      url: Where it listens.
      requests: All that it saw, in order.
      faults: Scripted faults; the first that fits counts.
      token: If set, 401 without `Authorization: Bearer <token>`.
      cookie: If set, 302 to a login page without that cookie.
      closed: Set when it answers no more.
      weather: Draws a fault for a request, None for the right answer; after the scripted ones.
      now: Tells the time, for what is carried out later.
      delayed: What is still to be carried out, and from when on.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    token: str = ""
    cookie: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)
    met: dict[int, int] = field(default_factory=dict)
    closed: threading.Event = field(default_factory=threading.Event)
    weather: Callable[[Request], Fault | None] = lambda request: None
    now: Callable[[], float] = time.monotonic
    delayed: list[tuple[float, Request]] = field(default_factory=list)

    def answer(self, request: Request) -> Any:
        """Returns what is answered, as JSON values.

        Raises:
          RefusedError: The request is wrong.
        """
        raise RefusedError(404, f"no such path: {request.path}")

    def refusal(self, error: RefusedError) -> dict[str, Any]:
        """Returns the body of a refusal: a google.rpc.Status, as grpc-gateway writes it."""
        return {"code": GRPC[error.status], "message": str(error), "details": []}

    def seen(self, method: str, path: str = "") -> list[Request]:
        """Returns the requests of a method, with a path that matches a regular expression."""
        return [r for r in self.requests if r.method == method and re.search(path, r.path)]

    def respond(self, request: Request) -> tuple[int, str, str, dict[str, str]]:
        """Returns status, content type, body and further headers."""
        with self.lock:
            self.requests.append(request)
            self._carry_out_delayed()
            fault = next((f for f in self.faults if f.fits(request) and self._still(f)), None)
            fault = fault or self.weather(request)
        if fault and fault.delay:
            self.closed.wait(fault.delay)
        if fault and fault.breaks:
            if fault.breaks == "later":
                self.delayed.append((self.now() + fault.late, request))
            elif fault.breaks == "after":
                self._answer_alone(request)
            raise ConnectionResetError
        if fault and fault.status:
            more = {"Location": fault.location} if fault.location else {}
            more |= {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return fault.status, fault.content_type, fault.body, more
        # What stands before KFP in a Kubeflow installation: an authentication proxy that leads to
        # Dex's page where a cookie is missing, and Envoy (jwt_verify_lib/status.cc) for a token.
        if self.cookie and request.headers.get("cookie") != self.cookie and "/apis" in request.path:
            return 302, "text/html", "", {"Location": f"{self.url}/dex/auth?state=1"}
        if request.path.startswith("/dex/"):
            return 200, "text/html", "<!DOCTYPE html><html>Log in to Your Account</html>", {}
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return 401, "text/plain", "Jwt verification fails", {}
        try:
            with self.lock:
                return 200, "application/json", json.dumps(self.answer(request)), {}
        except RefusedError as error:
            return error.status, "application/json", json.dumps(self.refusal(error)), {}

    def _carry_out_delayed(self) -> None:
        due = [each for each in self.delayed if each[0] <= self.now()]
        self.delayed = [each for each in self.delayed if each not in due]
        for _, request in due:
            self._answer_alone(request)

    def _answer_alone(self, request: Request) -> None:
        """Carries out a request whose answer nobody gets."""
        with self.lock, contextlib.suppress(RefusedError):
            self.answer(request)

    def _still(self, fault: Fault) -> bool:
        self.met[id(fault)] = self.met.get(id(fault), 0) + 1
        return self.met[id(fault)] <= fault.times


@contextmanager
def serving(stub: Stub, wrap: Callable[[Any], Any] = lambda socket: socket) -> Iterator[Stub]:
    """Serves a stub on a free port of this machine.

    Args:
      stub: What answers.
      wrap: Makes another socket of the server's, for TLS.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgment

        def handle_one(self) -> None:
            address = urlsplit(self.path)
            query = parse_qs(address.query, keep_blank_values=True)
            length = int(self.headers.get("Content-Length") or 0)
            request = Request(
                method=self.command,
                path=address.path,
                query={key: values[-1] for key, values in query.items()},
                headers={key.lower(): value for key, value in self.headers.items()},
                body=self.rfile.read(length),
            )
            try:
                status, content_type, text, more = stub.respond(request)
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                for key, value in more.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = (
                    True  # the client has given up waiting, or a fault breaks it
                )

        do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = handle_one  # noqa: N815

        def log_message(self, format: str, *values: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, address: Any) -> None:
            pass  # a client that hung up, as clients do that speak another protocol

    server = Server(("127.0.0.1", 0), Handler)
    plain = server.socket
    server.socket = wrap(plain)
    scheme = "http" if server.socket is plain else "https"
    stub.url = f"{scheme}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()
