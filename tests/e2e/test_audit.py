"""The audit log: one record a request, two a stream, nothing secret in it and nothing forged."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
import subprocess
import threading
import uuid
from pathlib import Path

import httpx2
import pytest
from tests.e2e.auditlog import Record, awaited, records
from tests.e2e.conftest import BIN, Gateway, Start
from tests.e2e.test_gateway import PROXY, applied, granted, signed_by_csr
from tests.waiting import eventually

from onepass.runtime.auditfile import AuditFile

pytestmark = pytest.mark.e2e

PODS = PROXY.format("sandbox-1") + "/api/v1/namespaces/default/pods"


def exchange(gateway: Gateway, request: bytes) -> bytes:
    """What the gateway answers to bytes sent over TLS without a client certificate."""
    host, _, port = gateway.url.removeprefix("https://").partition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, int(port)), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        answer = b""
        # Who has refused the beginning of a request does not wait long for its end.
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            tls.sendall(request)
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            while piece := tls.recv(65536):
                answer += piece
        return answer


def agent_of(record: Record) -> str:
    return str(record.get("userAgent", ""))


@pytest.fixture(scope="module")
def bob(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """May look at pods, from now on; what was asked to know that is in the records, of another namespace."""
    applied(gateway, granted("audited", "audit-bob", "get", "list", "watch"))
    path = signed_by_csr(gateway, "audit-bob", tmp_path_factory.mktemp("bob") / "kubeconfig", group="qa")
    asked = ("get", "pods", "-n", "kube-system")
    eventually(lambda: gateway.kubectl(*asked, kubeconfig=path, check=False).returncode == 0)
    return path


def test_what_is_allowed_names_who_what_and_the_pass_and_the_client_is_told_nothing_of_it(
    gateway: Gateway, bob: Path
) -> None:
    told = gateway.kubectl("get", "pods", "-v=9", kubeconfig=bob)
    (record, *_) = awaited(
        gateway,
        lambda r: (
            r.get("user", {}).get("username") == "audit-bob"
            and r.get("objectRef", {}).get("resource") == "pods"
            and r["objectRef"]["namespace"] == "default"
        ),
    )
    assert record["kind"] == "Event"
    assert record["apiVersion"] == "audit.k8s.io/v1"
    assert (record["level"], record["stage"], record["verb"]) == ("Metadata", "ResponseComplete", "list")
    assert record["objectRef"] == {"resource": "pods", "namespace": "default", "apiVersion": "v1"}
    assert record["user"]["groups"] == ["qa", "system:authenticated"]
    assert record["user"]["extra"]["authentication.kubernetes.io/credential-id"][0].startswith("X509SERIAL=")
    assert record["sourceIPs"] == ["127.0.0.1"]
    assert record["responseStatus"] == {"code": 200}
    assert record["requestURI"] == f"{PODS}?limit=500"
    notes = record["annotations"]
    assert notes["authorization.k8s.io/decision"] == "allow"
    assert notes["access.karpor.io/pass"] == "audited"
    assert notes["access.karpor.io/cluster"] == "sandbox-1"
    assert all(isinstance(note, str) for note in notes.values())
    assert record["requestReceivedTimestamp"] <= record["stageTimestamp"]
    assert uuid.UUID(record["auditID"])
    headers = [line for line in told.stderr.splitlines() if "Response Headers" in line or "\t" in line]
    assert headers
    assert "audited" not in "".join(headers)
    assert "x-onepass" not in told.stderr.lower()


def test_what_is_refused_says_why(gateway: Gateway, bob: Path) -> None:
    gateway.kubectl("get", "secrets", kubeconfig=bob, check=False)
    (record, *_) = awaited(
        gateway,
        lambda r: (
            r.get("user", {}).get("username") == "audit-bob" and r.get("objectRef", {}).get("resource") == "secrets"
        ),
    )
    assert record["responseStatus"]["code"] == 403
    assert record["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert 'cannot list resource "secrets"' in record["annotations"]["authorization.k8s.io/reason"]
    assert "access.karpor.io/pass" not in record["annotations"]


def test_a_stream_has_a_record_at_its_start_and_one_at_its_end(gateway: Gateway, bob: Path) -> None:
    process = subprocess.Popen(
        [str(BIN / "kubectl"), "--kubeconfig", str(bob), "get", "pods", "-w"],
        env=gateway.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def mine(record: Record) -> bool:
        return record.get("user", {}).get("username") == "audit-bob" and record.get("verb") == "watch"

    try:
        (start,) = awaited(gateway, mine)
    finally:
        process.kill()
        process.wait()
    assert (start["stage"], start["responseStatus"]["code"]) == ("ResponseStarted", 200)
    assert start["annotations"]["access.karpor.io/pass"] == "audited"
    _, end = awaited(gateway, mine, 2)
    assert (end["stage"], end["auditID"]) == ("ResponseComplete", start["auditID"])


def test_the_gateways_own_api_is_recorded_too_with_whom_somebody_acts_as(gateway: Gateway) -> None:
    name = f"audited-{uuid.uuid4().hex[:8]}"
    gateway.kubectl("get", "cluster", name, "--as", "carol", "--as-group", "ops", check=False, context="onepass")
    (record, *_) = awaited(gateway, lambda r: r.get("objectRef", {}).get("name") == name)
    assert record["objectRef"] == {
        "resource": "clusters", "name": name, "apiGroup": "cluster.karpor.io", "apiVersion": "v1beta1",
    }  # fmt: skip
    assert record["user"]["username"] == "admin"
    assert record["impersonatedUser"] == {"username": "carol", "groups": ["ops"]}
    assert (record["verb"], record["responseStatus"]["code"]) == ("get", 403)
    told = gateway.kubectl("get", "--raw", "/api", "-v=9", context="onepass").stderr
    (id,) = set(re.findall(r"Audit-Id: ([0-9a-f-]{36})", told))
    awaited(gateway, lambda r: r["auditID"] == id)


HOSTILE = [
    b'evil","user":{"username":"root"},"x":"',
    b"back\\slash \\u0000 \\n",
    b"\xff\xfe not UTF-8 \xc3",
    "\u2028\u2029 lines \U0001f4a9".encode(),
    b"\x1b[2J\x7f escape",
    b"%DYNAMIC_METADATA(onepass:request)% %REQ(authorization)%",
    b"x" * 5000,
]


@pytest.mark.parametrize("agent", HOSTILE)
def test_a_hostile_user_agent_stays_inside_its_string(gateway: Gateway, agent: bytes) -> None:
    mark = uuid.uuid4().hex
    sent = b"GET /version HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nUser-Agent: %b %b\r\n\r\n"
    answer = exchange(gateway, sent % (mark.encode(), agent))
    if answer.startswith(b"HTTP/1.1 400"):  # the header is no header: the record does not know it
        return
    (record,) = awaited(gateway, lambda r: agent_of(r).startswith(mark))
    assert record["user"]["username"] == "system:anonymous"
    assert len(agent_of(record)) <= 1024
    if agent.isascii() and b"\x1b" not in agent:
        assert agent_of(record) == f"{mark} {agent.decode()}"[:256]


@pytest.mark.parametrize(
    ("line", "code", "shown"),
    [
        (b"GET /api/v1/namespaces/a%2Fb?token=CANARY HTTP/1.1", 400, "/api/v1/namespaces/a/b"),
        (b"GET /api/v1/a;b?access_token=CANARY&limit=1 HTTP/1.1", 400, "/api/v1/a;b?limit=1"),
        (b'GET /api/v1/"%0A"?CANARY HTTP/1.1', 400, "/api/v1/%22%0A%22"),
        (b"GET /version?watch=CANARY%22%0a&pretty=1 HTTP/1.0", 426, None),
        (b"GARBAGE", 400, None),
        (b"TRACE /version?secret=CANARY HTTP/1.1", None, "/version"),
        (b"GET /" + b"a" * 90_000 + b"?x=CANARY HTTP/1.1", None, None),
        (b"GET /" + b"a" * 200_000 + b" HTTP/1.1", 431, None),
        (b"GET /version HTTP/1.1\r\nBad_Header: CANARY", 400, None),
    ],
)
def test_what_never_reaches_the_gatekeeper_is_recorded_without_its_secrets(
    gateway: Gateway, line: bytes, code: int | None, shown: str | None
) -> None:
    before = len(records(gateway))
    mark = uuid.uuid4().hex.encode()
    answer = exchange(gateway, line + b"\r\nHost: gateway\r\nConnection: close\r\nUser-Agent: " + mark + b"\r\n\r\n")
    answered = int(answer.split(b" ")[1])
    assert code in (None, answered)

    def mine(record: Record) -> bool:
        status = record.get("responseStatus", {}).get("code")
        known = agent_of(record) == mark.decode() or "user" not in record
        return status == answered and known and record["annotations"]["access.karpor.io/protocol"] != "HTTP/2"

    # Such a record says nothing of who it was: one of before may be written only now.
    awaited(gateway, lambda r: mine(r) and shown in (None, r.get("requestURI")), since=before)
    found = awaited(gateway, mine, since=before)
    assert "CANARY" not in json.dumps(found)
    assert all(len(record.get("requestURI", "")) <= 4096 for record in found)


def test_a_failed_handshake_is_recorded(gateway: Gateway) -> None:
    host, _, port = gateway.url.removeprefix("https://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.recv(100)
    (record, *_) = awaited(gateway, lambda r: "TLS" in r["annotations"].get("authorization.k8s.io/reason", ""))
    assert record["sourceIPs"] == ["127.0.0.1"]


def test_no_credential_is_ever_written(gateway: Gateway, bob: Path) -> None:
    canary = f"canary{uuid.uuid4().hex}"
    mark = uuid.uuid4().hex
    headers = "".join(
        f"{name}: {value}\r\n"
        for name, value in (
            ("Authorization", f"Bearer {canary}"),
            ("Cookie", f"session={canary}"),
            ("Sec-WebSocket-Protocol", f"base64url.bearer.authorization.k8s.io.{canary}"),
            ("Proxy-Authorization", f"Basic {canary}"),
            ("X-Remote-User", canary),
            ("X-Onepass-Route", canary),
            ("X-Forwarded-For", canary),
            ("X-Request-Id", canary),
            ("User-Agent", mark),
        )
    )
    for target in (f"/version?access_token={canary}", f"{PODS}/web/exec?command={canary}&stdin=true"):
        exchange(gateway, f"GET {target} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{headers}\r\n".encode())
    gateway.kubectl("exec", "nothing", "--", "echo", canary, kubeconfig=bob, check=False)
    assert len(awaited(gateway, lambda r: agent_of(r) == mark, 2)) == 2
    awaited(gateway, lambda r: r.get("objectRef", {}).get("name") == "nothing")
    assert canary not in json.dumps(records(gateway))


def test_no_record_is_lost_when_the_file_is_set_aside(gateway: Gateway) -> None:
    mark = uuid.uuid4().hex
    sent = 400
    done = threading.Event()

    def ask() -> None:
        try:
            with httpx2.Client(base_url=gateway.url, verify=False, headers={"user-agent": mark}, timeout=60) as client:
                for _ in range(sent):
                    client.get("/version")
        finally:
            done.set()

    async def turn() -> None:
        file = AuditFile(gateway.data_dir / "audit.log", 1, 0, str(gateway.data_dir / "run" / "admin.sock"))
        async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=file.admin), timeout=60) as client:
            await file.look(client)
            asking.start()
            while not done.is_set():
                await file.look(client)
        assert file.backups()

    asking = threading.Thread(target=ask)
    asyncio.run(turn())
    asking.join()
    found = awaited(gateway, lambda r: agent_of(r) == mark, sent)
    assert len({record["auditID"] for record in found}) == len(found) == sent


def test_on_standard_output_there_are_records_and_nothing_else(start: Start) -> None:
    gateway = start("--audit-log-path", "-", split=True)
    exchange(gateway, b"GET /version HTTP/1.1\r\nHost: g\r\nConnection: close\r\nUser-Agent: stdout-test\r\n\r\n")
    gateway.stop()
    eventually(lambda: any(agent_of(record) == "stdout-test" for record in map(json.loads, tuple(gateway.records))))
    assert not list(gateway.data_dir.glob("audit*"))
