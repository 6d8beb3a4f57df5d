# SPDX-License-Identifier: Apache-2.0
"""Connecting: KFP's real client where all is well, one clear line within seconds elsewhere."""

import datetime
import socket
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ieg_core.errors import UserError
from pipelines.cluster import client as clients
from pipelines.cluster.client import Patience, connect
from pipelines.cluster_files import ClusterFile
from tests.clock import FakeClock
from tests.pipelines.stubs.contract import Fault
from tests.pipelines.stubs.kfp_api import kfp_api

FOREVER = 300.0


def refusal(cluster_file, **patience):
    """Returns the line that `connect` refuses a cluster with, long before FOREVER."""
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        connect(cluster_file, Patience(**patience), FakeClock())
    assert time.monotonic() - began < FOREVER / 5  # seconds, but of a machine that may be busy
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_connects_to_a_single_user_installation(kfp_stub):
    client = connect(ClusterFile(endpoint=kfp_stub.url))
    assert client.create_experiment("e").display_name == "e"
    assert client.list_runs().total_size == 0


def test_works_in_the_clusters_namespace(multi_user_stub):
    client = connect(ClusterFile(endpoint=multi_user_stub.url, namespace="team"))
    assert client.create_experiment("e").namespace == "team"
    assert client.get_experiment(experiment_name="e").display_name == "e"


@pytest.mark.parametrize("namespace", ["", "team"])
def test_a_namespace_that_does_not_fit_the_installation(namespace, no_cluster):
    with kfp_api(multi_user=not namespace) as stub:
        line = refusal(ClusterFile(endpoint=stub.url, namespace=namespace))
    assert ("takes no namespace" if namespace else "your profile's namespace") in line
    assert stub.seen("POST") == []


@pytest.mark.parametrize("version", ["2.5.0", "2.15.2", "v1.8.22"])
def test_a_server_that_cannot_compile_the_package_is_refused(version, no_cluster):
    with kfp_api(version=version) as stub:
        line = refusal(ClusterFile(endpoint=stub.url))
    assert f"is KFP {version}, 2.16 or newer is required" in line
    assert stub.seen("POST") == []


@pytest.mark.parametrize("version", ["2.16.0", "2.17.3-rc.1", "2.18.0", "v3.0", "unknown", "dev"])
def test_a_server_that_may_be_new_enough_is_used(version, no_cluster, capsys):
    with kfp_api(version=version) as stub:
        assert connect(ClusterFile(endpoint=stub.url)).list_runs().total_size == 0
    said = capsys.readouterr().err
    assert ("does not say which version" in said) == (version in ("unknown", "dev"))
    assert ("newer than 2.17" in said) == (version in ("2.18.0", "v3.0"))


def test_the_environment_wins_over_the_cluster_file(kfp_stub, monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text("right\n")
    kfp_stub.token = "right"
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kfp_stub.url + "/")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://ui.example.org/")
    cluster_file = ClusterFile(
        endpoint="http://127.0.0.1:1", token_file="/nowhere", ui_endpoint="https://x.org"
    )
    assert connect(cluster_file).list_runs().total_size == 0
    assert clients.run_link(cluster_file, "7") == "https://ui.example.org/#/runs/details/7"


@pytest.mark.parametrize(
    ("address", "in_a_pod", "warned"),
    [
        ("http://kfp.example.org", False, True),
        ("https://kfp.example.org", False, False),
        ("http://localhost:8888", False, False),
        ("http://[::1]:8888", False, False),
        ("http://ml-pipeline.kubeflow:8888", True, False),
    ],
)
def test_a_login_that_others_can_read_is_a_warning(
    address, in_a_pod, warned, no_cluster, monkeypatch, tmp_path, capsys
):
    old = clients.Health(multi_user=False, version="2.5.0")
    monkeypatch.setattr(clients, "_health", lambda *_: old)
    if in_a_pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    token = tmp_path / "token"
    token.write_text("secret")
    refusal(ClusterFile(endpoint=address))
    assert "warning" not in capsys.readouterr().err
    refusal(ClusterFile(endpoint=address, token_file=str(token)))
    error = capsys.readouterr().err
    assert (f"warning: {address} is not encrypted" in error) == warned
    assert "secret" not in error


def test_a_token_is_read_again_for_each_request(kfp_stub, tmp_path):
    token = tmp_path / "token"
    token.write_text("first")
    kfp_stub.token = "first"
    client = connect(ClusterFile(endpoint=kfp_stub.url, token_file=str(token)))
    client.list_runs()
    kfp_stub.token = "second"  # as after an hour
    token.write_text("second")
    assert client.list_runs().total_size == 0


def test_a_cookie_is_sent(kfp_stub, tmp_path):
    cookie = tmp_path / "cookie"
    cookie.write_text("authservice_session=abc\n")
    kfp_stub.cookie = "authservice_session=abc"
    cluster_file = ClusterFile(endpoint=kfp_stub.url, cookie_file=str(cookie))
    assert connect(cluster_file).list_runs().total_size == 0
    cookie.write_text("authservice_session=old")
    assert f"refuses the cookie in {cookie}" in refusal(cluster_file)


def test_nothing_is_written_into_the_callers_home(kfp_stub, tmp_path):
    connect(ClusterFile(endpoint=kfp_stub.url))
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=401, body="Jwt is expired"), "requires a login: HTTP 401 Jwt is expired"),
        (Fault(status=403, body="RBAC: access denied"), "denies access: HTTP 403 RBAC"),
        (Fault(status=404, body="page not found"), "the endpoint ends in /pipeline"),
        (Fault(status=500, body='{"message": "database is down"}'), "HTTP 500 database is down"),
        (Fault(status=503, body="no healthy upstream"), "HTTP 503 no healthy upstream"),
        (Fault(status=302, location="/dex/auth?state=x"), "redirects to the login page /dex/auth;"),
        (Fault(status=200, body="<!DOCTYPE html><html></html>"), "answers with a web page"),
        (Fault(status=200, body="pong"), "is not a KFP 2 API: its health is 'pong'"),
        (Fault(status=200, body="[]"), "is not a KFP 2 API"),
        (
            Fault(status=301, location="https://kfp.example.org/apis/v2beta1/healthz"),
            "has moved: use https://kfp.example.org instead",
        ),
    ],
)
def test_what_is_wrong_is_one_clear_line_within_seconds(kfp_stub, fault, words):
    kfp_stub.faults.append(fault)
    assert words in refusal(ClusterFile(endpoint=kfp_stub.url))
    assert kfp_stub.seen("POST") == []


def test_a_server_that_does_not_answer_is_given_up(kfp_stub):
    assert Patience().health <= 4
    kfp_stub.faults.append(Fault(delay=FOREVER))
    line = refusal(ClusterFile(endpoint=kfp_stub.url), health=0.2)
    assert "did not answer within 0.2 seconds" in line


def test_a_wrong_token_names_its_file(kfp_stub, tmp_path):
    kfp_stub.token = "right"
    token = tmp_path / "token"
    token.write_text("wrong")
    assert f"refuses the token in {token}" in refusal(
        ClusterFile(endpoint=kfp_stub.url, token_file=str(token))
    )
    token.write_text("")
    line = refusal(ClusterFile(endpoint=kfp_stub.url, token_file=str(token)))
    assert "expected one line, got 0" in line
    line = refusal(ClusterFile(endpoint=kfp_stub.url, token_file=str(tmp_path / "none")))
    assert "No such file" in line


def test_a_host_that_is_not_there(no_cluster, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = refusal(ClusterFile(endpoint=f"http://127.0.0.1:{port}"))
    assert "nothing is listening at" in line
    assert "port-forward" in line
    assert "no cluster is configured" in refusal(ClusterFile())

    def know_no_name(*address, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", know_no_name)  # a real DNS may not answer at all
    assert "no such host" in refusal(ClusterFile(endpoint="https://kfp.invalid"))


def test_a_server_that_trickles_is_given_up(no_cluster):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        line = refusal(ClusterFile(endpoint=f"http://127.0.0.1:{port}"), connect=0.2)
    assert "did not answer within 0.2 seconds: it may be overloaded; try again later" in line


def test_an_endpoint_from_the_environment_needs_a_scheme(no_cluster, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "localhost:8888")
    assert "expected http://… or https://…" in refusal(ClusterFile())


@pytest.mark.parametrize(
    "address",
    ["http://", "http://:8888", "http://a:b", "http://[::1", "http://a:99999", "http://a b", "a:1"],
)
def test_what_is_no_address_is_refused_at_once(no_cluster, monkeypatch, address):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", address)
    assert "expected http://… or https://… with a host" in refusal(ClusterFile())


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for this machine: (its file, a server's TLS context)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.DNSName("localhost")
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = tmp_path / "ca.pem", tmp_path / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


def test_tls_is_checked_against_the_clusters_own_authority(certificate, no_cluster):
    public, context = certificate
    with kfp_api(wrap=lambda plain: context.wrap_socket(plain, server_side=True)) as stub:
        address = stub.url.replace("127.0.0.1", "localhost")
        client = connect(ClusterFile(endpoint=address, ca_file=str(public)))
        assert client.list_runs().total_size == 0
        assert "not trusted: set its ca_file" in refusal(ClusterFile(endpoint=address))
        line = refusal(ClusterFile(endpoint=address, ca_file=str(public.with_name("none"))))
        assert "does not exist" in line


def test_plain_http_where_tls_was_asked_for(kfp_stub):
    address = kfp_stub.url.replace("http://", "https://")
    assert "does not speak TLS" in refusal(ClusterFile(endpoint=address))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=401, body="Jwt is expired"), "requires a login: could not list the runs"),
        (Fault(status=403, body='{"message": "not yours"}'), "does not allow you to list the runs"),
        (Fault(status=500), "could not list the runs: scripted failure (HTTP 500)"),
        (Fault(status=302, location="/dex/auth"), "requires a login"),
    ],
)
def test_a_later_refusal_is_one_clear_line_too(kfp_stub, fault, words):
    cluster_file = ClusterFile(endpoint=kfp_stub.url)
    client = connect(cluster_file)
    kfp_stub.faults.append(fault)
    with pytest.raises(UserError) as caught, clients.plain_errors(cluster_file, "list the runs"):
        client.list_runs()
    assert words in str(caught.value)


def test_a_server_that_becomes_slow_is_given_up(kfp_stub):
    cluster_file = ClusterFile(endpoint=kfp_stub.url)
    client = connect(cluster_file, Patience(request=(0.2, 0.2)))
    kfp_stub.faults.append(Fault(delay=FOREVER))
    with (
        pytest.raises(UserError, match="stopped answering: could not create"),
        clients.plain_errors(cluster_file, "create the experiment"),
    ):
        client.create_experiment("e")
    assert kfp_stub.experiments == {}


def test_a_token_written_by_an_editor_of_windows(kfp_stub, tmp_path):
    kfp_stub.token = "right"
    token = tmp_path / "token"
    token.write_bytes(b"\xef\xbb\xbfright\r\n")
    connect(ClusterFile(endpoint=kfp_stub.url, token_file=str(token)))


def test_an_endpoint_behind_a_proxy(kfp_stub, monkeypatch):
    """The stub takes the place of the proxy, which is asked for the whole address."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", kfp_stub.url)
    assert clients.proxy_of("http://kfp.example") == kfp_stub.url
    assert clients.proxy_of("https://kfp.example") == ""
    client = connect(ClusterFile(endpoint="http://kfp.example"))
    assert client._run_api.api_client.rest_client.pool_manager.proxy.url == kfp_stub.url
    monkeypatch.setenv("no_proxy", "kfp.example")
    assert clients.proxy_of("http://kfp.example") == ""


def test_a_proxy_with_a_login(kfp_stub, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", kfp_stub.url.replace("//", "//me:p%40ss@"))
    assert connect(ClusterFile(endpoint="http://kfp.example")).list_runs().total_size == 0
    logins = [request.headers.get("proxy-authorization") for request in kfp_stub.requests]
    assert logins == ["Basic bWU6cEBzcw=="] * 2
    kfp_stub.faults.append(Fault(status=407))
    assert "HTTP_PROXY to http://user" in refusal(ClusterFile(endpoint="http://kfp.example"))


def test_a_proxy_that_is_not_there(no_cluster, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
    line = refusal(ClusterFile(endpoint="http://kfp.example"))
    assert "the proxy that HTTP_PROXY names cannot be reached" in line
    assert "secret" not in line
