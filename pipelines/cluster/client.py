# SPDX-License-Identifier: Apache-2.0
"""Connects KFP's client within seconds, or fails with a one-line error.

`kfp.Client` tries for half a minute, prints tracebacks, waits indefinitely for a slow server,
follows redirects to login pages, takes a web page for an empty answer and reads
~/.config/kfp/context.json. Here a health check comes first, each request has a timeout, and only
the cluster file counts. `plain_errors` tells failures that may pass from others; the callers repeat
requests by `pipelines.cluster.repeated_requests`.
"""

import contextlib
import functools
import io
import json
import os
import re
import sys
import threading
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import certifi
import kfp
import kfp_server_api
import urllib3
from kfp.client.token_credentials_base import TokenCredentialsBase

from ieg_core.errors import UserError
from ieg_core.host.clock import CLOCK, Clock
from pipelines import cluster_files
from pipelines.cluster import repeated_requests
from pipelines.cluster.repeated_requests import TransientError
from pipelines.cluster_files import ClusterFile

T = TypeVar("T")
BUSY = (429, 500, 502, 503, 504)
"""HTTP statuses that may pass."""
LONGEST_WAIT = 60.0
"""The most seconds of a Retry-After that are waited for."""
HEALTH = "/apis/v2beta1/healthz"
FORWARD = "kubectl port-forward -n {} svc/ml-pipeline 8888:8888"
OLDEST_KFP = (2, 16)
"""Older servers do not know the security context in our package's platform part."""
NEWEST_KFP = (2, 17)
"""Newer servers may need more of the role in k8s/base: its permissions follow this one's source."""


@dataclass(frozen=True)
class Health:
    """What a KFP server says about itself.

    Attributes:
      multi_user: Whether it is a multi-user installation.
      version: Its release, such as "2.17.0"; "unknown" if its image was built without one.
    """

    multi_user: bool
    version: str


class Patience(NamedTuple):
    """How long to wait for KFP, in seconds.

    Attributes:
      health: Of the health check: for the connection, and then for each read.
      connect: For the whole health check, with the name's resolution.
      busy: How long to repeat the health check of a server that is busy.
      request: Of every later request: for the connection, and then for each read.
    """

    health: float = 4.0
    connect: float = 8.0
    busy: float = 60.0
    request: tuple[float, float] = (5.0, 30.0)


PATIENCE = Patience()


def connect(cluster_file: ClusterFile, patience: Patience = PATIENCE, clock: Clock = CLOCK) -> Any:
    """Connects to the cluster's KFP.

    KF_PIPELINES_ENDPOINT, KF_PIPELINES_SA_TOKEN_PATH and KF_PIPELINES_UI_ENDPOINT override the
    cluster file. The token is read from its file for each request, the cookie at each `connect`.

    Args:
      cluster_file: The cluster file.
      patience: How long to wait for an answer.
      clock: Tells the time between two health checks.

    Returns:
      A `kfp.Client` whose requests time out after half a minute.

    Raises:
      UserError: When the address is wrong, does not answer within seconds, is not a KFP or answers
        with a login page, is too old, the credentials are refused, or the namespace does not fit
        the installation.
    """
    address = cluster_files.endpoint(cluster_file).rstrip("/")
    if not address:
        raise UserError(
            "no cluster is configured: set endpoint in cluster.yaml or KF_PIPELINES_ENDPOINT, or "
            "run here with RUNNER=local"
        )
    if not _is_address(address):
        raise UserError(f"endpoint {address!r}: expected http://… or https://… with a host")
    token = token_file(cluster_file)
    if (token or cluster_file.cookie_file) and is_readable_on_its_way(address):
        print(f"warning: {address} is not encrypted, and the login is sent to it as it is: use "
              "https://, or kubectl port-forward", file=sys.stderr)  # fmt: skip
    cookie = (
        _read_secret(cluster_file.cookie_file, "cookie_file") if cluster_file.cookie_file else ""
    )
    health = repeated_requests.ask(
        lambda: _within(
            patience.connect,
            address,
            lambda: _health(address, cluster_file, patience.health),
        ),
        clock,
        patience.busy,
    )
    check_version(address, health.version)
    if health.multi_user and not cluster_file.namespace:
        raise UserError(
            f"{address} is a multi-user KFP: name your profile's namespace in cluster.yaml"
        )
    if cluster_file.namespace and not health.multi_user:
        raise UserError(
            f"{address} is a single-user KFP, which takes no namespace, got "
            f"{cluster_file.namespace!r}: leave namespace out of the cluster file"
        )
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        client = _Client(
            host=address,
            ui_host=ui_address(cluster_file),
            credentials=FileToken(token) if token else None,
            cookies=cookie or None,
            ssl_ca_cert=cluster_file.ca_file or None,
            proxy=proxy_of(address) or None,
        )
    client._context_setting["namespace"] = cluster_file.namespace
    _check_requests(client, patience.request)
    return client


def is_readable_on_its_way(address: str) -> bool:
    """Returns whether what is sent to an address crosses a network in plain text.

    Neither this machine nor a cluster from within counts: a mesh encrypts what its pods send.
    """
    parts = urlsplit(address)
    is_here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return parts.scheme == "http" and not is_here and "KUBERNETES_SERVICE_HOST" not in os.environ


def check_version(address: str, version: str) -> None:
    """Refuses a server that is too old; warns of one that is newer than what was read, or unknown.

    Args:
      address: The server's address.
      version: Its release, from its health check.

    Raises:
      UserError: When the server is too old.
    """
    oldest = ".".join(map(str, OLDEST_KFP))
    release = re.match(r"v?(\d+)\.(\d+)", version)
    if not release:
        print(
            f"warning: {address} does not say which version of KFP it is (tag_name is "
            f"{version!r}); {oldest} or newer is required",
            file=sys.stderr,
        )
    elif tuple(map(int, release.groups())) < OLDEST_KFP:
        raise UserError(
            f"{address} is KFP {version}, {oldest} or newer is required: an older server refuses "
            'our package with "Failed to compile job"; upgrade it (docs/cluster.md, step 1)'
        )
    elif tuple(map(int, release.groups())) > NEWEST_KFP:
        newest = ".".join(map(str, NEWEST_KFP))
        print(
            f"warning: {address} is KFP {version}, newer than {newest}, from whose source the "
            'permissions of the pods follow: if a pod ends with "forbidden" or "PermissionDenied", '
            "extend the role ieg-pipelines (k8s/base/role.yaml)",
            file=sys.stderr,
        )


class _Client(kfp.Client):
    """KFP's client without its context file, its retries and its redirects."""

    def _load_config(self, *arguments: Any, **named: Any) -> Any:
        config = super()._load_config(*arguments, **named)
        # Repeating is up to `retry`: urllib3 would sleep through a Retry-After of any length.
        config.retries = urllib3.Retry(
            total=0, redirect=0, raise_on_redirect=False, respect_retry_after_header=False
        )
        if config.proxy:
            config.proxy_headers = _proxy_login(config.proxy)
        return config

    def _load_context_setting_or_default(self) -> None:
        # Any namespace will do: without one, KFP would repeat its health check five times.
        self._context_setting = {"namespace": "set by connect"}


class FileToken(TokenCredentialsBase):
    """A bearer token that is read from its file for each request, since such tokens expire."""

    def __init__(self, path: str) -> None:
        self.path = path

    def refresh_api_key_hook(self, config: Any) -> None:
        """Writes the current token into a client's configuration."""
        config.api_key["authorization"] = _read_secret(self.path, "token_file")


def _is_address(text: str) -> bool:
    try:
        url = urllib3.util.parse_url(text)
    except urllib3.exceptions.LocationParseError:
        return False
    return url.scheme in ("http", "https") and bool(re.fullmatch(r"[^\s%]+", url.host or ""))


def proxy_of(address: str) -> str:
    """Returns the proxy of HTTP_PROXY or HTTPS_PROXY for an address; "" if NO_PROXY excludes it."""
    parts = urlsplit(address)
    if urllib.request.proxy_bypass(parts.netloc):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "")


def _proxy_login(proxy: str) -> dict[str, str]:
    """Returns the header for http://user:password@proxy, which urllib3 does not send itself."""
    login = urllib3.util.parse_url(proxy).auth
    return urllib3.make_headers(proxy_basic_auth=unquote(login)) if login else {}


def connections(cluster_file: ClusterFile, address: str) -> urllib3.PoolManager:
    """Opens connections to an address, with the cluster's certificates and through its proxy."""
    certificates = cluster_file.ca_file or certifi.where()
    if proxy := proxy_of(address):
        return urllib3.ProxyManager(proxy, proxy_headers=_proxy_login(proxy), ca_certs=certificates)
    return urllib3.PoolManager(ca_certs=certificates)


def token_file(cluster_file: ClusterFile) -> str:
    """Returns the path of the bearer token's file; "" if none is configured."""
    return os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", "") or cluster_file.token_file


def ui_address(cluster_file: ClusterFile) -> str:
    """Returns the address of the KFP UI."""
    address = os.environ.get("KF_PIPELINES_UI_ENDPOINT", "") or cluster_file.ui_endpoint
    return (address or cluster_files.endpoint(cluster_file)).rstrip("/")


def headers(cluster_file: ClusterFile) -> dict[str, str]:
    """Returns the headers of a request with the cluster's login.

    Raises:
      UserError: When a file with a login cannot be read.
    """
    named = {"Accept": "application/json"}
    if token := token_file(cluster_file):
        named["Authorization"] = f"Bearer {_read_secret(token, 'token_file')}"
    if cluster_file.cookie_file:
        named["Cookie"] = _read_secret(cluster_file.cookie_file, "cookie_file")
    return named


def run_link(cluster_file: ClusterFile, run_id: str) -> str:
    """Returns the address of a run's page in the KFP UI."""
    return f"{ui_address(cluster_file)}/#/runs/details/{run_id}"


@contextlib.contextmanager
def plain_errors(cluster_file: ClusterFile, doing: str) -> Iterator[None]:
    """Turns errors of the API into one line each, and suppresses the output of KFP's client.

    Args:
      cluster_file: The cluster file.
      doing: The attempted action, such as "create the run".

    Raises:
      TransientError: When the API is busy or does not answer.
      UserError: When the API refuses.
    """
    address = cluster_files.endpoint(cluster_file)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except kfp_server_api.ApiException as error:
        raise _refused(error, cluster_file, doing) from error
    except _NotJsonError as error:
        raise _no_json(error.text, cluster_file, f"could not {doing}") from None
    except urllib3.exceptions.HTTPError as error:
        # The connection was never made: the request cannot have been carried out.
        unsent = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
        raise TransientError(
            f"{address} stopped answering: could not {doing}: {_reason(error)}",
            is_refused=isinstance(getattr(error, "reason", error), unsent),
        ) from error


def ask(cluster_file: ClusterFile, doing: str, request: Callable[[], T], clock: Clock = CLOCK) -> T:
    """Makes a request that may be carried out twice, and repeats it while KFP is busy.

    Args:
      cluster_file: The cluster file.
      doing: The attempted action, such as "read the run".
      request: Makes it.
      clock: Tells the time between two tries.

    Raises:
      UserError: When KFP refuses, or does not answer for two minutes.
    """
    return repeated_requests.ask(functools.partial(_plainly, cluster_file, doing, request), clock)


def create(
    cluster_file: ClusterFile,
    doing: str,
    request: Callable[[], T],
    find: Callable[[], T | None],
    clock: Clock = CLOCK,
) -> T:
    """Makes a request that must not be carried out twice, and repeats it while KFP is busy.

    Args:
      cluster_file: The cluster file.
      doing: The attempted action, such as "create the run".
      request: Makes it.
      find: Returns what an earlier try has created; None if there is nothing.
      clock: Tells the time between two tries.

    Raises:
      UserError: When KFP refuses, or does not answer for two minutes.
    """
    look = functools.partial(_plainly, cluster_file, f"see whether it could {doing}", find)
    return repeated_requests.create(
        functools.partial(_plainly, cluster_file, doing, request), look, clock
    )


def _plainly(cluster_file: ClusterFile, doing: str, request: Callable[[], T]) -> T:
    with plain_errors(cluster_file, doing):
        return request()


def _refused(error: Any, cluster_file: ClusterFile, doing: str) -> UserError:
    address, words = cluster_files.endpoint(cluster_file), _message(error.body) or str(error.reason)
    if error.status in (301, 302, 303, 307, 308, 401):
        return _not_logged_in(address, cluster_file, f"could not {doing}")
    if error.status == 403:
        where = f" in the namespace {cluster_file.namespace}" if cluster_file.namespace else ""
        return UserError(
            f"{address} does not allow you to {doing}{where}: {words}; ask for the right to edit "
            "pipelines there (role kubeflow-pipelines-edit)"
        )
    line = f"{address} could not {doing}: {words} (HTTP {error.status})"
    if error.status not in BUSY:
        return UserError(line)
    return TransientError(line, _retry_after(error.headers), is_refused=error.status == 429)


def _retry_after(headers: Any) -> float:
    """Returns the seconds of a Retry-After header; 0 if there is none, or it is a date."""
    text = str((headers or {}).get("Retry-After") or "")
    return min(float(text), LONGEST_WAIT) if text.isdecimal() else 0.0


class _NotJsonError(Exception):
    """An answer with status 200 is not JSON."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


def _no_json(text: str, cluster_file: ClusterFile, what: str) -> UserError:
    address = cluster_files.endpoint(cluster_file)
    if "<html" in text.lower():
        return _not_logged_in(address, cluster_file, f"{what}: it answers with a web page")
    return TransientError(f"{address}: {what}: its answer {_message(text)[:80]!r} is not JSON")


def _message(body: Any) -> str:
    """Returns the API's message, shortened to one line."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    with contextlib.suppress(ValueError):
        answer = json.loads(text)
        if isinstance(answer, dict):
            text = str(answer.get("message") or answer.get("error") or text)
    return " ".join(text.split())[:300].rstrip(".")


def _not_logged_in(address: str, cluster_file: ClusterFile, what: str) -> UserError:
    if token_file(cluster_file):
        return UserError(
            f"{address} refuses the token in {token_file(cluster_file)}: {what}; it may have "
            "expired: write a new one to that file"
        )
    if cluster_file.cookie_file:
        return UserError(
            f"{address} refuses the cookie in {cluster_file.cookie_file}: {what}; log in with a "
            "browser again and write the new cookie to that file"
        )
    return UserError(
        f"{address} requires a login: {what}; set token_file or cookie_file in cluster.yaml"
    )


def _read_secret(path: str, key: str) -> str:
    try:
        # Windows' editors write a byte order mark, which no server expects.
        text = Path(path).expanduser().read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", "") or "it is not a text file"
        raise UserError(
            f"{key} {path!r} cannot be read ({words}): expected a text file of one line; correct "
            f"{key} in the cluster file"
        ) from None
    if not text or "\n" in text:
        raise UserError(f"{key} {path!r}: expected one line, got {len(text.splitlines())}")
    return text


def _health(address: str, cluster_file: ClusterFile, seconds: float) -> Health:
    """Asks the server for its health."""
    if cluster_file.ca_file and not Path(cluster_file.ca_file).is_file():
        raise UserError(
            f"ca_file {cluster_file.ca_file!r} does not exist: expected the certificates of the "
            "endpoint's authority, in PEM form; correct it in the cluster file"
        )
    try:
        with connections(cluster_file, address) as pool:
            answer = pool.request(
                *("GET", address + HEALTH),
                headers=headers(cluster_file),
                retries=False,
                timeout=urllib3.Timeout(connect=seconds, read=seconds),
            )
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _no_answer(address, cluster_file, error, seconds) from error
    return _read_health(address, cluster_file, answer)


def _read_health(address: str, cluster_file: ClusterFile, answer: Any) -> Health:
    text = answer.data.decode(errors="replace")
    status, location = answer.status, answer.headers.get("Location", "")
    if status in (301, 302, 303, 307, 308):
        if location.endswith(HEALTH):
            raise UserError(
                f"endpoint {address} has moved: use {location.removesuffix(HEALTH)} instead"
            )
        raise _not_logged_in(
            address, cluster_file, f"it redirects to the login page {location.split('?')[0]}"
        )
    if status == 401:
        raise _not_logged_in(address, cluster_file, f"HTTP 401 {_message(text)}")
    if status == 403:
        raise UserError(
            f"{address} denies access: HTTP 403 {_message(text)}; check that token_file or "
            "cookie_file in cluster.yaml is yours and that you may use KFP there"
        )
    if status == 407:
        raise UserError(
            f"{address}: the proxy requires a login: set {urlsplit(address).scheme.upper()}_PROXY "
            "to http://user:password@host:port"
        )
    if status == 404:
        raise UserError(
            f"there is no KFP 2 API at {address}: HTTP 404; behind a Kubeflow dashboard the "
            "endpoint ends in /pipeline"
        )
    if status != 200:
        line = f"{address} is not healthy: HTTP {status} {_message(text)}"
        if status in BUSY:
            raise TransientError(line, _retry_after(answer.headers))
        raise UserError(line)
    try:
        content = json.loads(text)
        multi_user = bool(content.get("multi_user", content.get("multiUser", False)))
        return Health(multi_user, str(content.get("tag_name") or "unknown"))
    except (ValueError, AttributeError):
        if "<html" in text.lower():
            raise _not_logged_in(address, cluster_file, "it answers with a web page") from None
        raise UserError(
            f"{address} is not a KFP 2 API: its health is {' '.join(text.split())[:80]!r}; "
            "expected a JSON object; correct endpoint in the cluster file"
        ) from None


def _no_answer(
    address: str, cluster_file: ClusterFile, error: Exception, seconds: float
) -> UserError:
    text = str(error)
    dialed = (urllib3.exceptions.ProxyError, urllib3.exceptions.NewConnectionError)
    if proxy_of(address) and isinstance(error, dialed):
        variable = f"{urlsplit(address).scheme.upper()}_PROXY"
        return UserError(
            f"{address}: the proxy that {variable} names cannot be reached ({_reason(error)}): "
            f"correct {variable}, or name the host in NO_PROXY"
        )
    if isinstance(error, urllib3.exceptions.NameResolutionError) or "resolve" in text:
        return UserError(f"endpoint {address}: no such host; check its name and your DNS or VPN")
    if "refused" in text:
        forward = FORWARD.format(cluster_file.kfp_namespace)
        return UserError(f"nothing is listening at {address}; is a port-forward missing? {forward}")
    if isinstance(error, urllib3.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in text:
        given = (
            f"ca_file {cluster_file.ca_file} did not sign it"
            if cluster_file.ca_file
            else "set its ca_file"
        )
        return UserError(f"{address}: the certificate is not trusted: {given} (cluster.yaml)")
    if isinstance(error, urllib3.exceptions.SSLError):
        return UserError(f"{address} does not speak TLS: use http:// if it is plain HTTP")
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return UserError(
            f"{address} did not answer within {seconds:g} seconds; check the address, your VPN and "
            "the firewall"
        )
    return TransientError(f"{address} cannot be reached: {_reason(error)}")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:200]


def _within(seconds: float, address: str, function: Callable[[], T]) -> T:
    """Runs a function in a thread that is abandoned when it takes too long.

    The timeouts of the single steps do not cover a server that sends a byte now and then, or a DNS
    server that does not answer.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(function())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise UserError(
            f"{address} did not answer within {seconds:g} seconds: it may be overloaded; try again "
            "later"
        )
    return done[0]


def _check_requests(client: Any, seconds: tuple[float, float]) -> None:
    """Limits the time of each request, and refuses answers that are not JSON.

    KFP's client would read a login page as an object without fields.
    """
    rest = client._run_api.api_client.rest_client
    plain = rest.request

    def checked(*arguments: Any, **named: Any) -> Any:
        named["_request_timeout"] = named.get("_request_timeout") or seconds
        answer = plain(*arguments, **named)
        try:
            json.loads(answer.data)
        except ValueError:
            data = answer.data
            text = data.decode(errors="replace") if isinstance(data, bytes) else str(data)
            raise _NotJsonError(text) from None
        return answer

    rest.request = checked
