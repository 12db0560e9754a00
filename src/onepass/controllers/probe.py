"""Asks every member cluster how it is, and keeps `Cluster.status`.

Two questions: an anonymous TLS handshake tells whether the member is there, whether its certificate is right and
whether it offers HTTP/2; then `GET /version` goes the way that users' requests go, through Envoy, which adds the
credential. So Python never holds a connection that carries a credential of a member.

A fleet is asked at an even pace: bounds on how many looks begin in a second and how many are under way, jitter on every
pause, longer pauses for members that stay away, and a share of the looks beyond which these cannot go, so that those
which hang take nothing from the others.
"""

import asyncio
import functools
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import quote

from onepass.api import meta
from onepass.api.meta import Object
from onepass.controllers import connecting, feed, findings, tunnelling
from onepass.controllers.findings import Answer, Finding, Standing
from onepass.controllers.loop import Loop, backoff
from onepass.registry import credentials

CLUSTERS = "clusters.cluster.karpor.io"
HANDSHAKE_SECONDS = 5.0
REQUEST_SECONDS = 10.0
CONCURRENCY = 64  # looks under way at once: so many handshakes or requests, never more
AWAY = 32  # of them, those at members that did not answer the last time
RATE = 100.0  # looks that begin in a second
HEALTHY_SECONDS = 20.0  # between two looks at a member that is well, in a fleet that is not too large for it
ROUTINE = 50.0  # looks in a second at members that are well; a larger fleet is looked at less often
CHANGED_SECONDS = 1.0  # until a member is looked at whose spec has changed
DOUBT_SECONDS = 5.0  # until the next look, when what was found is not believed yet
UNHEALTHY_SECONDS = (1.0, 60.0)  # the first and the longest pause of a member that is away
NODES_SECONDS = 900.0  # between two counts of its nodes
_PUBLISH_SECONDS = 5.0  # how long Envoy may take to learn of a new member
_ASK_AGAIN_SECONDS = (0.05, 0.8)  # the first and the longest pause until it has; a fleet's looks wait together
_JSON = "application/json"
_SERVER_NAME = "set serverName to a name that it is for"
# By X509_V_ERR_* of OpenSSL (x509_vfy.h): not valid yet, ended, for another host, for another address.
_CERTIFICATE_ADVICE = {
    9: "check the clocks of the member and of the gateway",
    10: "renew it, or the authority in caBundle, whichever has ended",
    62: _SERVER_NAME,
    64: _SERVER_NAME,
}
_NODES = "/api/v1/nodes?limit=1"
_MORE_NODES = "/api/v1/nodes?limit=100&continue="  # of so many the metadata is far below what is read of an answer
_PAGES = 100
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


@dataclass(frozen=True, slots=True)
class Peer:
    """What a handshake needs to know of a member; `ca` is PEM, empty for the system's trust store."""

    host: str
    port: int
    server_name: str
    ca: str
    insecure: bool
    judge: Callable[[str], Sequence[str]] = lambda _address: ()  # what keeps an address from being connected to
    proxy: tunnelling.GetProxy | None = None
    via: str = ""  # the proxy in a sentence
    others: tuple["Peer", ...] = ()  # further places of the same member


class Forbidden(OSError):
    """A name leads only to addresses where no member may be; the text is the end of a sentence about them."""


class Statuses(Protocol):
    """Writes the status of a cluster; the registry's store in disguise."""

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None: ...


# (cluster name, inner path, Accept) -> answer, through Envoy. Raises OSError when there is none.
Ask = Callable[[str, str, str], Awaitable[Answer]]


@functools.lru_cache(maxsize=256)
def _context(ca: str, *, insecure: bool) -> ssl.SSLContext:
    """Kept, as members share authorities: to make one takes milliseconds, and tens of them to read what the system
    trusts, which is for members without an authority of their own."""
    context = ssl.create_default_context(cadata=ca or None)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def handshake(peer: Peer) -> str:
    """The ALPN protocol that the member chooses of h2 and http/1.1. Raises OSError and ssl.SSLError."""
    context = _context(peer.ca, insecure=peer.insecure)
    async with asyncio.timeout(HANDSHAKE_SECONDS):
        writer = await _connected(peer, context)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    chosen = tls.selected_alpn_protocol() or "http/1.1"
    writer.close()
    return chosen


async def handshakes(peer: Peer) -> tuple[Sequence[str], Sequence[Finding]]:
    """With every place of a member: what those choose that answer, and what keeps the others from it."""

    async def one(place: Peer) -> str | Finding:
        try:
            return await handshake(place)
        except (OSError, TimeoutError) as error:
            return unreachable(place, error)

    found = await asyncio.gather(*map(one, (peer, *peer.others)))
    return [each for each in found if isinstance(each, str)], [each for each in found if isinstance(each, Finding)]


async def _connected(peer: Peer, context: ssl.SSLContext) -> asyncio.StreamWriter:
    """To an address that has been judged: the name is looked up once, and not again by who connects."""
    if peer.proxy:
        place, name = (peer.host, peer.port), peer.server_name or peer.host
        return await tunnelling.connected(await peer.proxy(), place, context, name, peer.judge)
    allowed, wrong = await tunnelling.judged(peer.host, peer.port, peer.judge)
    if not allowed:
        raise Forbidden(wrong)
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
    where = f"{peer.host}:{peer.port}" + (f", through the proxy {peer.via}," if peer.via else "")
    match error:
        case tunnelling.ProxyFailed():
            told = (error.reason, str(error))
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
            advice = _CERTIFICATE_ADVICE.get(error.verify_code, "check caBundle")
            told = (
                "CertificateInvalid",
                f"the certificate of {where} is not trusted: {error.verify_message}; {advice}",
            )
        case ssl.SSLError():
            why = connecting.why(error)
            told = ("TLSFailed", f"TLS with {where} does not come about: {why}; check the endpoint and its port")
        case _:
            why = connecting.why(error)
            told = ("Unreachable", f"{where} cannot be reached: {why}; check the endpoint and the way there")
    return Finding(False, False, *told)


async def count_nodes(ask: Ask, name: str) -> int | None:
    """By one request to a kube-apiserver, page by page where a server does not say how many are left. None for a member
    that does not tell, or has no end. Raises OSError when it cannot be said now."""
    total, path = 0, _NODES
    for number in range(_PAGES):
        answer = await ask(name, path, _METADATA)
        if answer.code == 429 or answer.code >= 500 or (number and answer.code != 200):
            raise OSError(f"a list of nodes answered {answer.code}")
        page = findings.nodes(answer)
        if page is None:
            return None
        total += page.nodes
        if not page.further:
            return total
        path = _MORE_NODES + quote(page.further, safe="")
    return None


@dataclass(slots=True)
class Probe:
    """The controller. `peer` reads a Cluster object, `ask` sends through Envoy, `statuses` writes."""

    objects: feed.Objects
    statuses: Statuses
    peer: Callable[[Object], Peer]
    ask: Ask
    clock: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    _standings: dict[str, tuple[str, Standing]] = field(default_factory=dict)  # by name: uid, and what is remembered

    async def run(self) -> None:
        """Until cancelled."""
        loop = Loop("probe", self.reconcile, workers=CONCURRENCY, rate=RATE, slow=self._is_away, slow_workers=AWAY)
        await feed.run(self.objects, CLUSTERS, loop, feed.generation, self.delay)

    def delay(self, cluster: Object) -> float:
        """When to look first: what is new at once, what is wanted otherwise once Envoy has it (else the first answer is
        to what was wanted before), the others over a whole round, not all at a start."""
        uid, _ = self._standings.get(meta.name(cluster), ("", None))
        known = uid == meta.uid(cluster)
        if not findings.told(cluster):
            return CHANGED_SECONDS if known else 0.0
        return 0.0 if known else self.random() * self._round()

    async def reconcile(self, name: str) -> float | None:
        """Look at one member; returns after how many seconds to look again."""
        cluster = self.objects.get(CLUSTERS, name)
        if cluster is None:
            self._standings.pop(name, None)
            return None
        uid, standing = self._standings.get(name, ("", Standing()))
        if uid != meta.uid(cluster):
            standing = Standing()
            self._standings[name] = (meta.uid(cluster), standing)
        standing.begin(feed.generation(cluster))
        finding = await self.look(cluster)
        if finding is None:
            return self._spread(DOUBT_SECONDS)
        standing.seen(finding)
        believed = standing.believes(cluster)
        counted = await self._counted(name, standing) if believed and finding.healthy else findings.as_it_was

        def applied(status: Object) -> Object:
            new = findings.applied(cluster, status, finding, self.clock()) if believed else status
            if finding.healthy:
                new = findings.with_latency(new, standing.latency)
            return counted(new)

        status = meta.section(cluster, "status")
        if applied(status) != status:
            if status.get("healthy") is True and believed and not finding.healthy:
                standing.fell()
            await self.statuses.write(name, meta.uid(cluster), applied)
        return self._spread(self._pause(cluster, finding, standing, believed=believed))

    def _pause(self, cluster: Object, finding: Finding, standing: Standing, *, believed: bool) -> float:
        status = meta.section(cluster, "status")
        if not believed and findings.applied(cluster, status, finding, self.clock()) != status:
            return DOUBT_SECONDS
        return self._round() if finding.healthy else backoff(*UNHEALTHY_SECONDS, standing.failures)

    def _round(self) -> float:
        return max(HEALTHY_SECONDS, self.objects.count(CLUSTERS) / ROUTINE)

    def _spread(self, seconds: float) -> float:
        return seconds * (0.75 + self.random() / 2)

    def _is_away(self, name: str) -> bool:
        """Whether the last look failed, also when that was before a restart."""
        if known := self._standings.get(name):
            return known[1].failures > 0
        cluster = self.objects.get(CLUSTERS, name)
        return cluster is not None and meta.section(cluster, "status").get("healthy") is False

    async def look(self, cluster: Object) -> Finding | None:
        """One look at one member; None when nothing can be said, because there is no Envoy to ask through."""
        peer = self.peer(cluster)
        alpns, missing = await handshakes(peer)
        if not alpns:
            return missing[0]
        if credentials.awaited(cluster):
            told = "its credential program has not answered yet; the condition CredentialValid says why"
            return Finding(True, False, "NoCredential", told, alpn=alpns[0])
        found = await self._ask(cluster, alpns[0])
        if found is None or not missing:
            return found
        told = "; ".join(each.message for each in missing)
        return replace(found, missing=f"{len(missing)} of {1 + len(peer.others)} endpoints fail: {told}")

    async def _ask(self, cluster: Object, alpn: str) -> Finding | None:
        deadline, pause = asyncio.get_running_loop().time() + _PUBLISH_SECONDS, _ASK_AGAIN_SECONDS[0]
        while True:
            began = time.perf_counter()
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    answer = await self.ask(meta.name(cluster), "/version", _JSON)
            except (OSError, TimeoutError) as error:
                return findings.unanswered(error, alpn, REQUEST_SECONDS)
            late = asyncio.get_running_loop().time() > deadline
            if not (answer.unknown or answer.nobody) or (answer.unknown and late):
                return findings.verdict(cluster, answer, alpn, round((time.perf_counter() - began) * 1000))
            if late:
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _ASK_AGAIN_SECONDS[1])

    async def _counted(self, name: str, standing: Standing) -> Callable[[Object], Object]:
        """What becomes of a status by counting the nodes, when it is time to; a member may refuse to tell."""
        now = asyncio.get_running_loop().time()
        if now < standing.nodes_due:
            return findings.as_it_was
        standing.nodes_due = now + self._spread(NODES_SECONDS)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                nodes = await count_nodes(self.ask, name)
        except (OSError, TimeoutError):
            return findings.as_it_was
        return functools.partial(findings.with_nodes, nodes=nodes)
