"""Joins the publish and probe controllers to the data plane."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import httpx2

from onepass.access.policy import Policy
from onepass.api import meta
from onepass.api.meta import Object
from onepass.controllers import probe, publish
from onepass.controllers.findings import Answer
from onepass.gateway import ir, members, replies, resources, routing, tunnels
from onepass.pki import certificates
from onepass.registry import credentials, destinations
from onepass.registry.currentpolicy import CurrentPolicy
from onepass.runtime.whereabouts import Whereabouts
from onepass.xds.ads import Ads

_JSON = "application/json"
_LARGEST = 1 << 20  # bytes of an answer that the controllers read


@dataclass(slots=True)
class Plane:
    """What publish shows: the frame that the operator chose, with policy and members put in."""

    current: CurrentPolicy
    frame: ir.Gateway
    revocations: Callable[[frozenset[str]], bytes]  # serial numbers to a CRL in PEM; the same for the same numbers
    builder: resources.Builder
    ads: Ads
    whereabouts: Whereabouts
    secrets: publish.Secrets
    shown: int = 0  # the generation of the newest snapshot, for Ads.acknowledged
    issuers: Sequence[ir.Issuer] = ()  # beside those of the frame: the ones that were found
    front: ir.Front | None = None  # when what its host says of it is known
    _last: tuple[Policy, dict[str, ir.Member]] | None = field(default=None, repr=False)

    def policy(self) -> Policy:
        return self.current.get()

    def member(self, cluster: Object, secret: bytes | None) -> ir.Member:
        """Also ValueError for one that is where no member may be: it may have been registered under other rules; and
        for one without the credential that it is to have, or a request would reach it as nobody."""
        if credentials.awaited(cluster):
            raise ValueError("its credential program has not answered yet")
        member = members.member(cluster, secret)
        bounds = self.bounds()
        for what, (host, port) in _literals(member):
            if wrong := destinations.judge(host, port, bounds):
                raise ValueError(f"its {what} {wrong[0]}")
        credential = replace(member.credential, certificate=_certificates(member.credential.certificate))
        return replace(member, ca=_certificates(member.ca), credential=credential)

    def bounds(self) -> destinations.Bounds:
        return self.whereabouts.bounds()

    def show(self, policy: Policy, members: dict[str, ir.Member]) -> None:
        self._last = (policy, members)
        listener = self.frame.listener
        known = replace(listener.known, issuers={each.issuer: each.claims for each in self.issuers if each.claims})
        listener = replace(
            listener,
            client_crl=self.revocations(policy.revoked),
            issuers=(*listener.issuers, *self.issuers),
            known=known,
        )
        gateway = replace(
            self.frame,
            listener=listener,
            front=self.front,
            policy=policy,
            members=members,
            bounds=self.whereabouts.for_envoy(),
        )
        self.shown = self.ads.set(self.builder.build(gateway))

    def reframe(
        self,
        frame: ir.Gateway | None = None,
        issuers: Sequence[ir.Issuer] | None = None,
        front: ir.Front | None = None,
    ) -> None:
        """Show the same policy and members in another frame, with other issuers of tokens or for another host."""
        self.frame = self.frame if frame is None else frame
        self.issuers = self.issuers if issuers is None else issuers
        self.front = self.front if front is None else front
        if self._last is not None:
            self.show(*self._last)

    def peer(self, cluster: Object) -> probe.Peer:
        """Where a handshake with a member goes."""
        target = members.member(cluster, None)
        authority, bounds = _certificates(target.ca).decode(), self.bounds()
        get = functools.partial(self._proxy, cluster) if target.proxy else None
        peers = [
            probe.Peer(
                *(host, port, target.server_name, authority, target.insecure),
                judge=functools.partial(_judge, target.proxy.port if target.proxy else port, bounds),
                proxy=get,
                via=tunnels.shown(target.proxy) if target.proxy else "",
            )
            for host, port in target.places
        ]
        return replace(peers[0], others=tuple(peers[1:]))

    async def _proxy(self, cluster: Object) -> ir.Proxy:
        """With the password, which is needed for no longer than a handshake."""
        proxy = members.member(cluster, await self.secrets.secret(meta.name(cluster), meta.uid(cluster))).proxy
        if proxy is None:
            raise OSError("the cluster has no proxy any more")
        return proxy


def _judge(port: int, bounds: destinations.Bounds, address: str) -> Sequence[str]:
    return destinations.judge(address, port, bounds)


def _literals(member: ir.Member) -> Iterator[tuple[str, ir.Place]]:
    """Where a member and its proxy are, as far as these are addresses; where names lead is judged when connecting."""
    places = [("endpoint", place) for place in member.places]
    if member.proxy:
        places.append(("proxy", (member.proxy.host, member.proxy.port)))
    yield from (each for each in places if members.is_address(each[1][0]))


def _certificates(pem: bytes) -> bytes:
    """The certificates of a text alone: for anything else in it Envoy refuses a Cluster, and goes on with the last."""
    return certificates.to_pem(certificates.chain(pem)) if pem else b""


@dataclass(slots=True)
class Asker:
    """Sends the controllers' requests to members, through Envoy's unix socket."""

    client: httpx2.AsyncClient
    current: CurrentPolicy

    @classmethod
    def on(cls, path: str, current: CurrentPolicy) -> "Asker":
        # As many as the controllers may have under way: who waited here for a connection would blame the member.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
        transport = httpx2.AsyncHTTPTransport(uds=path, limits=limits)
        return cls(httpx2.AsyncClient(transport=transport, timeout=probe.REQUEST_SECONDS), current)

    async def ask(self, name: str, path: str, accept: str) -> Answer:
        """GET a path of a member. Raises OSError when it does not answer."""
        return await self._send("GET", name, path, {"accept": accept}, None)

    async def post(self, name: str, path: str, body: bytes) -> Answer:
        """POST JSON to a path of a member. Raises OSError when it does not answer."""
        return await self._send("POST", name, path, {"accept": _JSON, "content-type": _JSON}, body)

    async def _send(self, method: str, name: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        target = self.current.get().targets.get(name)
        if target is None:
            return Answer(503, b"", replies.NOT_PUBLISHED)
        sent = {routing.MEMBER: f"member/{name}", "host": target.authority, "accept-encoding": "identity", **headers}
        url = f"http://envoy{target.prefix}{path}"
        try:
            async with self.client.stream(method, url, headers=sent, content=body) as answer:
                content = await _bounded(answer)
        except httpx2.ConnectError:
            return Answer(503, b"", nobody=True)
        except httpx2.TimeoutException as error:
            raise TimeoutError from error
        except httpx2.HTTPError as error:
            raise ConnectionResetError("broke off within its answer") from error
        return Answer(answer.status_code, content, answer.headers.get(replies.WHY, ""))


async def _bounded(answer: httpx2.Response) -> bytes:
    """The body as it came, as much of it as anybody here reads: a member may send without end."""
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) >= _LARGEST:
            break
    return bytes(content[:_LARGEST])
