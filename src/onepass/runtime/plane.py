"""Joins the publish and probe controllers to the data plane."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx2

from onepass.access.policy import Policy
from onepass.api.meta import Object
from onepass.controllers import probe
from onepass.gateway import ir, members, replies, resources, routing
from onepass.registry.currentpolicy import CurrentPolicy
from onepass.xds.ads import Ads


@dataclass(slots=True)
class Plane:
    """What publish shows: the frame that the operator chose, with policy and members put in."""

    current: CurrentPolicy
    frame: ir.Gateway
    revocations: Callable[[frozenset[str]], bytes]  # serial numbers to a CRL in PEM; the same for the same numbers
    builder: resources.Builder
    ads: Ads
    shown: int = 0  # the generation of the newest snapshot, for Ads.acknowledged

    def policy(self) -> Policy:
        return self.current.get()

    def member(self, cluster: Object, secret: bytes | None) -> ir.Member:
        return members.member(cluster, secret)

    def show(self, policy: Policy, members: dict[str, ir.Member]) -> None:
        listener = replace(self.frame.listener, client_crl=self.revocations(policy.revoked))
        gateway = replace(self.frame, listener=listener, policy=policy, members=members)
        self.shown = self.ads.set(self.builder.build(gateway))


def peer(cluster: Object) -> probe.Peer:
    """Where a handshake with a member goes."""
    target = members.member(cluster, None)
    return probe.Peer(target.host, target.port, target.server_name, target.ca.decode(), target.insecure)


@dataclass(slots=True)
class Asker:
    """Sends the prober's requests through Envoy's unix socket."""

    client: httpx2.AsyncClient
    current: CurrentPolicy

    @classmethod
    def on(cls, path: str, current: CurrentPolicy) -> "Asker":
        transport = httpx2.AsyncHTTPTransport(uds=path, limits=httpx2.Limits(max_connections=64))
        return cls(httpx2.AsyncClient(transport=transport, timeout=probe.REQUEST_SECONDS), current)

    async def ask(self, name: str, path: str) -> probe.Answer:
        """GET a path of a member. Raises OSError when Envoy does not answer."""
        target = self.current.get().targets.get(name)
        if target is None:
            return probe.Answer(503, b"", unknown=True)
        headers = {routing.MEMBER: f"member/{name}", "host": target.authority, "accept": "application/json"}
        try:
            answer = await self.client.get(f"http://envoy{target.prefix}{path}", headers=headers)
        except httpx2.ConnectError:
            return probe.Answer(503, b"", unknown=True)  # no Envoy there yet: that says nothing of the member
        except httpx2.HTTPError as error:
            raise OSError(str(error) or type(error).__name__) from error
        return probe.Answer(answer.status_code, answer.content, replies.UNKNOWN_MEMBER in answer.headers)
