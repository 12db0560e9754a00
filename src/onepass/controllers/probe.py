"""Asks every member cluster how it is, and keeps `Cluster.status`.

Two questions: an anonymous TLS handshake tells whether the member is there, whether its certificate is right and
whether it offers HTTP/2; then `GET /version` goes the way that users' requests go, through Envoy, which adds the
credential. So Python never holds a connection that carries a credential of a member.
"""

import asyncio
import json
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from onepass.api import meta
from onepass.api.meta import Object
from onepass.controllers import conditions, feed
from onepass.controllers.conditions import Condition
from onepass.controllers.loop import Loop

CLUSTERS = "clusters.cluster.karpor.io"
HANDSHAKE_SECONDS = 5.0
REQUEST_SECONDS = 10.0
HEALTHY_SECONDS = 20.0  # between two looks at a member that is well
UNHEALTHY_SECONDS = (1.0, 30.0)  # the first and the longest pause after a failure
_PUBLISH_SECONDS = 5.0  # how long Envoy may take to learn of a new member


@dataclass(frozen=True, slots=True)
class Peer:
    """What a handshake needs to know of a member; `ca` is PEM, empty for the system's trust store."""

    host: str
    port: int
    server_name: str
    ca: str
    insecure: bool
    judge: Callable[[str], Sequence[str]] = lambda _address: ()  # what keeps an address from being connected to


class Forbidden(OSError):
    """A name leads only to addresses where no member may be; the text is the end of a sentence about them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back through Envoy. `unknown` says that Envoy has not heard of the member yet."""

    code: int
    body: bytes
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One look at a member. `reason` is a CamelCase word, `message` a sentence for the administrator."""

    reachable: bool
    healthy: bool
    reason: str
    message: str
    version: str = ""
    alpn: str = ""
    latency_ms: int = 0


class Statuses(Protocol):
    """Writes the status of a cluster; the registry's store in disguise."""

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None: ...


Ask = Callable[[str, str], Awaitable[Answer]]  # (cluster name, inner path) -> answer, through Envoy


async def handshake(peer: Peer) -> str:
    """The ALPN protocol that the member chooses of h2 and http/1.1. Raises OSError and ssl.SSLError."""
    context = ssl.create_default_context(cadata=peer.ca or None)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if peer.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(HANDSHAKE_SECONDS):
        writer = await _connected(peer, context)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    chosen = tls.selected_alpn_protocol() or "http/1.1"
    writer.close()
    return chosen


async def _connected(peer: Peer, context: ssl.SSLContext) -> asyncio.StreamWriter:
    """To an address that has been judged: the name is looked up once, and not again by who connects."""
    found = await asyncio.get_running_loop().getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(str(each[4][0]) for each in sorted(found, key=lambda each: each[0] != socket.AF_INET))
    wrong = {address: peer.judge(address) for address in addresses}
    allowed = [address for address in addresses if not wrong[address]]
    if not allowed:
        address = next(iter(addresses))
        raise Forbidden(f"{address}, which {wrong[address][0]}")
    for address in allowed:
        try:
            _, writer = await asyncio.open_connection(
                address, peer.port, ssl=context, server_hostname=peer.server_name or peer.host
            )
        except ssl.SSLError:
            raise
        except OSError:
            if address == allowed[-1]:
                raise
        else:
            return writer
    raise AssertionError("the last address either answers or raises")


def unreachable(peer: Peer, error: BaseException) -> Finding:
    """A failed handshake, told as a sentence."""
    where = f"{peer.host}:{peer.port}"
    match error:
        case Forbidden():
            told = ("EndpointForbidden", f"{peer.host} leads to {error}; register the member by another endpoint")
        case TimeoutError():
            told = (
                "Timeout",
                f"{where} did not answer within {HANDSHAKE_SECONDS:.0f} s; check the address and firewalls",
            )
        case socket.gaierror():
            told = ("NameNotFound", f"the name {peer.host} cannot be resolved; check the endpoint")
        case ConnectionRefusedError():
            told = ("ConnectionRefused", f"nothing listens on {where}; check the endpoint and that the server runs")
        case ssl.SSLCertVerificationError():
            told = (
                "CertificateInvalid",
                f"the certificate of {where} is not trusted: {error.verify_message}; check caBundle and serverName",
            )
        case ssl.SSLError():
            told = ("TLSFailed", f"{where} does not speak TLS as expected: {error.reason or error}")
        case _:
            told = ("Unreachable", f"{where} cannot be reached: {error}")
    return Finding(False, False, *told)


def verdict(answer: Answer, alpn: str, latency_ms: int) -> Finding:
    """What an answer to `GET /version` says of the member."""
    if answer.code == 200:
        try:
            told = json.loads(answer.body)
        except ValueError:
            told = None
        version = told.get("gitVersion") if isinstance(told, dict) else None
        if isinstance(version, str):
            return Finding(True, True, "Ready", "the member answers", version, alpn, latency_ms)
        return Finding(True, False, "NotKubernetes", "/version did not answer as a kube-apiserver does", alpn=alpn)
    if answer.code == 401:
        return Finding(
            True,
            False,
            "Unauthorized",
            "the member refuses the stored credential; give the gateway a new one: onepass cluster rotate",
            alpn=alpn,
        )
    if answer.code == 403:
        return Finding(
            True, False, "Forbidden", "the stored credential may not read /version; give it system:discovery", alpn=alpn
        )
    try:
        said = json.loads(answer.body)
        why = said["message"] if isinstance(said, dict) else ""
    except (ValueError, KeyError):
        why = ""
    return Finding(
        answer.code not in (502, 503, 504),
        False,
        "Failing",
        f"/version answered {answer.code} {why}".strip(),
        alpn=alpn,
    )


def applied(status: Object, finding: Finding, now: float) -> Object:
    """The status with a finding in it; equal to what was there when nothing worth telling has changed.

    The latency is renewed only when it has doubled or halved, so that a quiet fleet writes nothing.
    """
    new = dict(status)
    new["healthy"] = finding.healthy
    new["conditions"] = conditions.merged(
        status.get("conditions"),
        now,
        Condition("Reachable", finding.reachable, finding.reason, finding.message),
        Condition("Ready", finding.healthy, finding.reason, finding.message),
    )
    if finding.version:
        new["version"] = finding.version
    if finding.alpn:
        new["alpn"] = finding.alpn
    if finding.healthy:
        old = status.get("latency")
        milliseconds = int(old.removesuffix("ms")) if isinstance(old, str) and old[:-2].isdigit() else 0
        if not milliseconds or not milliseconds / 2 <= finding.latency_ms <= milliseconds * 2:
            new["latency"] = f"{max(1, finding.latency_ms)}ms"
    return new


@dataclass(slots=True)
class Probe:
    """The controller. `peer` reads a Cluster object, `ask` sends through Envoy, `statuses` writes."""

    objects: feed.Objects
    statuses: Statuses
    peer: Callable[[Object], Peer]
    ask: Ask
    clock: Callable[[], float] = time.time
    concurrency: int = 32

    async def run(self) -> None:
        """Until cancelled."""
        failures: dict[str, int] = {}

        async def reconcile(name: str) -> float | None:
            cluster = self.objects.get(CLUSTERS, name)
            if cluster is None:
                failures.pop(name, None)
                return None
            finding = await self.look(cluster)
            status = meta.section(cluster, "status")
            if applied(status, finding, self.clock()) != status:
                await self.statuses.write(
                    name, meta.uid(cluster), lambda current: applied(current, finding, self.clock())
                )
            failures[name] = 0 if finding.healthy else failures.get(name, 0) + 1
            first, longest = UNHEALTHY_SECONDS
            pause = HEALTHY_SECONDS if finding.healthy else min(longest, first * 2.0 ** min(failures[name] - 1, 10))
            return pause * random.uniform(0.75, 1.25)  # noqa: S311  spreads the probes of a fleet

        await feed.run(self.objects, CLUSTERS, Loop("probe", reconcile, workers=self.concurrency), feed.generation)

    async def look(self, cluster: Object) -> Finding:
        """One look at one member."""
        peer = self.peer(cluster)
        try:
            alpn = await handshake(peer)
        except (OSError, TimeoutError) as error:
            return unreachable(peer, error)
        deadline = asyncio.get_running_loop().time() + _PUBLISH_SECONDS
        while True:
            began = time.perf_counter()
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    answer = await self.ask(meta.name(cluster), "/version")
            except (OSError, TimeoutError) as error:
                return Finding(True, False, "NoAnswer", f"the member accepts connections but does not answer: {error}")
            if not answer.unknown or asyncio.get_running_loop().time() > deadline:
                return verdict(answer, alpn, round((time.perf_counter() - began) * 1000))
            await asyncio.sleep(0.05)
