"""Members that fail, each in one way, beside one that is well and under load: `onepass up` with kubectl.

What is wrong is told to administrators and to users, and whoever is mended is found again by itself.
"""

import base64
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple  # objects are JSON

import httpx2
import pytest
import trustme
import yaml
from tests.e2e.conftest import Gateway
from tests.e2e.ways import Way
from tests.programs import beside
from tests.protocol import faultymembers
from tests.protocol.faultymembers import Faulty

from onepass.gateway import replies

pytestmark = pytest.mark.e2e

SECONDS = 120.0
CLUSTERS = "/apis/cluster.karpor.io/v1beta1/clusters"
TOKEN = "canary-of-a-faulty-member"


def said(code: str, body: str, *headers: str) -> bytes:
    head = (f"HTTP/1.1 {code}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers)
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


WELL = said("200 OK", json.dumps({"gitVersion": "v1.36.0", "items": [], "metadata": {}}))
STATUS = json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "etcd is away", "code": 500})


class Fault(NamedTuple):
    """How a member fails. `reason` and `advice` are of its condition Ready, `user` is what kubectl prints."""

    fault: str
    reachable: bool
    reason: str
    advice: str
    user: str
    answer: bytes = b""
    certificate: str = ""  # by "other" authority, or "ended"


FORGED = f"{replies.WHY}: {replies.NOT_PUBLISHED}"  # which is for Envoy to say
LOGS = "see what its API server logs"
ENDPOINT = "check that the endpoint is the API server's own"
BROKE = "broke off the connection before it answered"
ROTATE = "onepass cluster rotate 401 --kubeconfig FILE"
FAULTS: Mapping[str, Fault] = {
    "refuses": Fault("refuses", False, "ConnectionRefused", "check the endpoint", "nothing listens at its endpoint"),
    "no-tls": Fault("no TLS", False, "Timeout", "check the address and firewalls", "no connection within 5 seconds"),
    "stranger": Fault("says", False, "CertificateInvalid", "check caBundle", "is not trusted", WELL, "other"),
    "ended": Fault("says", False, "CertificateInvalid", "renew it", "a certificate that has ended", WELL, "ended"),
    "no-answer": Fault("no answer", True, "NoAnswer", LOGS, "Unable to connect to the server"),
    "cut": Fault("reset", True, "BrokenOff", LOGS, "halferror: stream error"),
    "half": Fault("half a body", True, "NoAnswer", LOGS, "halferror: "),
    "garbage": Fault("no HTTP", True, "NotHTTP", "check its endpoint", "does not speak HTTP"),
    "breaks-off": Fault("breaks off", True, "BrokenOff", LOGS, BROKE),
    "401": Fault("says", True, "Unauthorized", ROTATE, "refuses the credential", said("401 Unauthorized", "{}")),
    "500": Fault("says", True, "Failing", LOGS, "etcd is away", said("500 Internal Server Error", STATUS, FORGED)),
    "html": Fault("says", True, "NotKubernetes", ENDPOINT, "<html>", said("200 OK", "<html>")),
    "moved": Fault(
        "says", True, "Redirects", ENDPOINT, "a redirect", said("302 Found", "", "Location: https://[::1]/")
    ),
}
HANGING = ("no-answer", "half")  # until the patience of who asks has ended, which kubectl says in several ways
SLOW = ("no-tls", *HANGING)  # to be found out
MENDED = [name for name in FAULTS if name not in SLOW]


@dataclass
class Fleet:
    """A member for each fault."""

    ca: trustme.CA
    stack: contextlib.AsyncExitStack
    members: dict[str, Faulty] = field(default_factory=dict)

    async def start(self) -> None:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        for name, each in FAULTS.items():
            authority = trustme.CA() if each.certificate == "other" else self.ca
            context = faultymembers.served(authority, yesterday if each.certificate == "ended" else None)
            running = faultymembers.running(each.fault, self.ca, context=context)
            member = self.members[name] = await self.stack.enter_async_context(running)
            member.answer, member.context = each.answer, context

    async def mend(self, name: str) -> None:
        member = self.members[name]
        if member.fault == "refuses":
            running = faultymembers.running("says", self.ca, port=member.port)
            member = await self.stack.enter_async_context(running)
        elif member.context:
            self.ca.issue_cert("127.0.0.1").configure_cert(member.context)
        member.fault, member.answer = "says", WELL


@contextlib.asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    async with contextlib.AsyncExitStack() as stack:
        made = Fleet(trustme.CA(), stack)
        await made.start()
        yield made


@contextmanager
def registered(gateway: Gateway, members: Mapping[str, Faulty], ca: trustme.CA) -> Iterator[None]:
    bundle = base64.b64encode(ca.cert_pem.bytes()).decode()
    credential = {"type": "ServiceAccountToken", "serviceAccountToken": TOKEN}
    clusters = [
        {
            "apiVersion": "cluster.karpor.io/v1beta1",
            "kind": "Cluster",
            "metadata": {"name": name, "labels": {"of": "faults"}},
            "spec": {
                "access": {
                    "endpoint": f"https://127.0.0.1:{member.port}",
                    "caBundle": bundle,
                    "credential": credential,
                }
            },
        }
        for name, member in members.items()
    ]
    listed = {"apiVersion": "v1", "kind": "List", "items": clusters}
    gateway.kubectl("apply", "-f", "-", context="onepass", input=json.dumps(listed))
    try:
        yield
    finally:
        gateway.kubectl("delete", "clusters", "-l", "of=faults", context="onepass")


@dataclass
class Load:
    """Requests to sandbox-1 all the time, each a GET that must succeed, and a watch there that must go on."""

    client: httpx2.Client
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        while not self.over.wait(0.01):
            try:
                answer = self.client.get("/api/v1/namespaces")
            except httpx2.HTTPError as error:
                self.wrong.append(repr(error))
                continue
            self.answered += 1
            if answer.status_code != 200:
                self.wrong.append(f"{answer.status_code} {answer.text}")

    def watch(self) -> None:
        with self.client.stream("GET", "/api/v1/namespaces/default/configmaps?watch=1") as answer:
            for line in answer.iter_lines():
                self.watched.append(line)
                if "last-of-the-load" in line:
                    return


@contextmanager
def load(gateway: Gateway, directory: Path) -> Iterator[Load]:
    config = yaml.safe_load(gateway.kubeconfig.read_text())
    authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
    way = Way(directory, "x509", gateway.url, authority, config["users"][0]["user"])
    place = f"{gateway.url}{CLUSTERS}/sandbox-1/proxy"
    with (
        httpx2.Client(verify=way.tls(), base_url=place, trust_env=False, timeout=SECONDS) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        running = Load(client)
        tasks = [pool.submit(each) for each in (running.watch, running.ask, running.ask)]
        try:
            yield running
        finally:
            running.over.set()
            gateway.kubectl("create", "configmap", "last-of-the-load", context="sandbox-1")
            gateway.kubectl("delete", "configmap", "last-of-the-load", context="sandbox-1")
            for task in tasks:
                task.result(SECONDS)


def statuses(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """Names of the faulty members to their status."""
    listed = gateway.kubectl("get", "clusters", "-l", "of=faults", "-o", "json", context="onepass").stdout
    return {each["metadata"]["name"]: each.get("status", {}) for each in json.loads(listed)["items"]}


def condition(status: dict[str, Any], kind: str) -> tuple[str, str, str]:
    found: dict[str, str] = next((each for each in status.get("conditions", []) if each["type"] == kind), {})
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def found_out(gateway: Gateway, name: str, status: dict[str, Any]) -> None:
    """What administrators hear of a faulty member."""
    wanted = FAULTS[name]
    assert status["healthy"] is False
    assert condition(status, "Reachable")[0] == str(wanted.reachable), name
    ready, reason, message = condition(status, "Ready")
    assert (ready, reason) == ("False", wanted.reason), name
    assert wanted.advice in message, name
    assert condition(status, "Authorized")[0] == ("False" if name == "401" else "Unknown")
    assert TOKEN not in json.dumps(status)


def hears(gateway: Gateway, name: str, path: str = "/api/v1/pods") -> str:
    """What a user of a member is told, once the gateway knows that one."""
    server = f"--server={gateway.url}{CLUSTERS}/{name}/proxy"
    patience = "--request-timeout=" + ("15s" if name in HANGING else "60s")
    deadline = time.monotonic() + SECONDS
    while True:
        done = gateway.kubectl(server, patience, "get", "--raw", path, context="onepass", check=False)
        if f'"{name}" not found' not in done.stderr:
            return done.stdout + done.stderr
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.2)


def until(gateway: Gateway, names: Iterable[str], *, healthy: bool) -> dict[str, dict[str, Any]]:
    """The statuses of all of them, when each is so."""
    deadline = time.monotonic() + SECONDS
    while True:
        seen = {name: status for name, status in statuses(gateway).items() if name in names}
        late = {
            name: status
            for name, status in seen.items()
            # On a slow machine it may be told first that the data plane does not know a member yet, or that nothing
            # came in time.
            if status.get("healthy") is not healthy
            or condition(status, "Ready")[1] != ("Ready" if healthy else FAULTS[name].reason)
        }
        if not late:
            return seen
        assert time.monotonic() < deadline, late
        time.sleep(0.2)


def listed(gateway: Gateway) -> None:
    """By both commands, with a word for what is wrong."""
    printed = {
        line.split()[0]: line
        for line in gateway.kubectl("get", "cl", "-o", "wide", context="onepass").stdout.splitlines()
    }
    ours = gateway.onepass("cluster", "list")
    lines = {line.split()[0]: line for line in ours.stdout.splitlines()}
    for name in MENDED:
        assert FAULTS[name].reason in printed[name]
        assert f"unhealthy: {FAULTS[name].reason}" in lines[name]
    assert "what to do: onepass cluster show 401" in ours.stderr
    assert ROTATE in gateway.onepass("cluster", "show", "401").stdout
    assert " healthy " in lines["sandbox-1"]


def test_each_fault_is_told_and_mended_and_noticed_by_nobody_else(gateway: Gateway, tmp_path: Path) -> None:
    with (
        beside.running(fleet) as (faulty, run),
        load(gateway, tmp_path) as busy,
        registered(gateway, faulty.members, faulty.ca),
        ThreadPoolExecutor(len(FAULTS)) as pool,
    ):
        told = {name: pool.submit(hears, gateway, name) for name in FAULTS}
        for name, status in until(gateway, MENDED, healthy=False).items():
            found_out(gateway, name, status)
            assert FAULTS[name].user in told[name].result(SECONDS), name
        listed(gateway)
        behind = "/api/v1/namespaces/default/services/shop/proxy/"
        assert "You must be logged in" in hears(gateway, "401", behind)  # there, says the shop
        for name in MENDED:
            run(faulty.mend(name))
        for name, status in until(gateway, SLOW, healthy=False).items():
            found_out(gateway, name, status)
            assert FAULTS[name].user in told[name].result(SECONDS), name
        for name, status in until(gateway, MENDED, healthy=True).items():
            assert condition(status, "Ready") == ("True", "Ready", "the member answers"), name
        assert busy.wrong == []
        assert busy.answered > 0
    assert "last-of-the-load" in busy.watched[-1]
