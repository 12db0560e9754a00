"""The intermediate representation as the resources that Envoy is served.

A fleet of 5,000 clusters changes one at a time: what was serialised for an unchanged member or policy is kept.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf.message import Message

from onepass.access.policy import Policy
from onepass.gateway import httpfilters, ir, listeners, proto, tables, tlscontexts, tunnels, upstreams
from onepass.xds.snapshot import Resource, Snapshot

CLUSTER = proto.type_url(cluster_pb2.Cluster)
SECRET = proto.type_url(secret_pb2.Secret)
LISTENER = proto.type_url(listener_pb2.Listener)
EXTENSION = proto.type_url(extension_pb2.TypedExtensionConfig)

Written = Mapping[str, Resource]  # by resource name


class Builder:
    """Makes snapshots. The result depends on the argument alone; the memory of the last ones only saves work."""

    def __init__(self, policy_source: Callable[[Policy, ir.Known], str]) -> None:
        """`policy_source` writes a policy, and what is known of credentials, as the gatekeeper's Lua."""
        self._source = policy_source
        self._frame: tuple[str, ir.Bounds] = ("", ir.Bounds())
        self._members: dict[str, tuple[ir.Member, Written, Written]] = {}  # with its clusters and its secrets
        self._policy: tuple[Policy, ir.Known, str] | None = None

    def build(self, gateway: ir.Gateway) -> Snapshot:
        """Everything that the data plane should have for `gateway`."""
        if self._frame != (frame := (gateway.system_trust, gateway.bounds)):
            self._frame, self._members = frame, {}
        members = {name: self._member(gateway.members[name], gateway) for name in sorted(gateway.members)}
        self._members = members
        clusters = {name: cluster for _, written, _ in members.values() for name, cluster in written.items()}
        if gateway.sockets.companions:
            clusters[upstreams.COMPANIONS] = _written(upstreams.companions_cluster(gateway.sockets.companions))
        clusters |= _all(upstreams.issuer_clusters(gateway.listener.issuers, gateway.system_trust))
        clusters[upstreams.APISERVER] = _written(upstreams.apiserver_cluster(gateway.sockets.apiserver))
        secrets = {name: secret for *_, written in members.values() for name, secret in written.items()}
        secrets |= _all(tlscontexts.listener_secrets(gateway.listener))
        gatekeepers = {httpfilters.GATEKEEPER: self._gatekeeper(gateway.policy, gateway.listener.known)}
        ports = {
            listeners.GATEWAY: listeners.gateway(gateway.listener, gateway.audit_log),
            listeners.PROBE: listeners.probe(gateway.sockets.probe),
        }
        if any(member.proxy for member in gateway.members.values()):
            ports |= tunnels.listeners()
            clusters[tunnels.OUT] = _written(upstreams.tunnels_cluster())
        if front := gateway.front:
            ports[listeners.FRONT] = listeners.front(front, gateway.audit_log)
            secrets |= _all(tlscontexts.front_secrets(front))
            own = gatekeepers[httpfilters.GATEKEEPER]
            gatekeepers[httpfilters.FRONT_GATEKEEPER] = tables.of_front(front, own)
        return Snapshot(
            MappingProxyType(
                {
                    CLUSTER: clusters,
                    SECRET: secrets,
                    LISTENER: _all(ports),
                    EXTENSION: _all(httpfilters.extensions(gateway.listener.issuers, gatekeepers)),
                }
            )
        )

    def _member(self, member: ir.Member, gateway: ir.Gateway) -> tuple[ir.Member, Written, Written]:
        known = self._members.get(member.name)
        if known is not None and known[0] == member:
            return known
        secrets = _all(tlscontexts.member_secrets(member))
        # The token is set on each request, so a new one needs no new connection.
        lasting = [secrets[name].version for name in sorted(secrets) if name != tlscontexts.token_name(member)]
        trust, bounds = gateway.system_trust, gateway.bounds
        clusters = {upstreams.name(member): upstreams.member_cluster(member, trust, bounds, "/".join(lasting))}
        if proxy := member.proxy:
            clusters[tunnels.name(member)] = upstreams.proxy_cluster(member, proxy, trust, bounds)
            if proxy.authorization:
                secrets = {**secrets, **_all({tunnels.secret_name(member): tunnels.secret(member, proxy)})}
        return member, _all(clusters), secrets

    def _gatekeeper(self, policy: Policy, known: ir.Known) -> str:
        if self._policy is None or self._policy[:2] != (policy, known):
            self._policy = (policy, known, self._source(policy, known))
        return self._policy[2]


def _written(message: Message) -> Resource:
    return Resource.of(proto.encoded(message))


def _all(messages: Mapping[str, Message]) -> Written:
    return {name: _written(message) for name, message in messages.items()}
