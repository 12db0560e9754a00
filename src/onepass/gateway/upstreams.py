"""Envoy clusters: one a member, the API server, and the issuers whose keys Envoy fetches."""

import hashlib
from collections.abc import Mapping, Sequence

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, extension_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.filters.http.credential_injector.v3 import credential_injector_pb2
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.http.injected_credentials.generic.v3 import generic_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2

from onepass.gateway import destinationguard, ir, members, proto, several, tlscontexts, tunnels

COMPANIONS = "companions"
_STREAMS = 1_000_000  # more than there will ever be
APISERVER = "apiserver"
_Cluster = cluster_pb2.Cluster
_Options = http_protocol_options_pb2.HttpProtocolOptions
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_CONNECT = 5.0
# kube-apiserver closes idle connections after 90 s; whoever closes first does not lose a request to the race.
_IDLE = 60.0

_KEEPALIVE = protocol_pb2.KeepaliveSettings(interval=proto.seconds(30), timeout=proto.seconds(10))
STREAMS = 250  # of one HTTP/2 connection: what a kube-apiserver admits


def http2(window: int) -> protocol_pb2.Http2ProtocolOptions:
    """A stream may have `window` bytes under way. The connection has room for as many of every stream, as that of a
    kube-apiserver: streams that nobody reads would otherwise use up the window of those beside them."""
    return protocol_pb2.Http2ProtocolOptions(
        max_concurrent_streams=proto.u32(STREAMS),
        initial_stream_window_size=proto.u32(window),
        initial_connection_window_size=proto.u32(STREAMS * window),
        connection_keepalive=_KEEPALIVE,
    )


# Envoy's default is made for many small answers; a list of 100 MB over a long line needs this window.
_HTTP2 = http2(proto.MEBIBYTE)

# One dead member slows no other: a bound of its own for each, far above what its own users need.
_BREAKERS = circuit_breaker_pb2.CircuitBreakers(
    thresholds=[
        circuit_breaker_pb2.CircuitBreakers.Thresholds(
            max_connections=proto.u32(10_000),
            max_pending_requests=proto.u32(10_000),
            max_requests=proto.u32(20_000),
            max_retries=proto.u32(20_000),  # by default 3 at once, and all that was under way is asked again at once
            track_remaining=True,
        )
    ]
)

# Of several addresses the one that failed five times in a row is left out for a few seconds. What a member answers, 5xx
# included, never counts; but streams that break off do, as Envoy cannot tell them from failures to connect.
_OUTLIERS = outlier_detection_pb2.OutlierDetection(
    split_external_local_origin_errors=True,
    consecutive_local_origin_failure=proto.u32(5),
    enforcing_consecutive_local_origin_failure=proto.u32(100),
    enforcing_local_origin_success_rate=proto.u32(0),
    enforcing_consecutive_5xx=proto.u32(0),
    enforcing_consecutive_gateway_failure=proto.u32(0),
    enforcing_success_rate=proto.u32(0),
    interval=proto.seconds(5),
    base_ejection_time=proto.seconds(5),
    max_ejection_time=proto.seconds(15),
    max_ejection_percent=proto.u32(100),
)

_KEPT_ALIVE = cluster_pb2.UpstreamConnectionOptions(
    tcp_keepalive=address_pb2.TcpKeepalive(
        keepalive_time=proto.u32(30), keepalive_interval=proto.u32(10), keepalive_probes=proto.u32(3)
    )
)


def name(member: ir.Member) -> str:
    return f"member/{member.name}"


def member_cluster(
    member: ir.Member, system_trust: str, bounds: ir.Bounds, secrets_version: str
) -> cluster_pb2.Cluster:
    """The Cluster of a member.

    `secrets_version` stands for its client certificate: when that changes the cluster does, and Envoy opens new
    connections for new requests, while open streams end on the old ones.
    """
    tls = tlscontexts.upstream(member, system_trust)
    told: dict[str, proto.Value] = {"secrets": secrets_version}
    cluster = _Cluster(
        name=name(member),
        type=_Cluster.STATIC,
        connect_timeout=proto.seconds(_CONNECT),
        per_connection_buffer_limit_bytes=proto.u32(proto.MEBIBYTE),
        load_assignment=_hosts(name(member), [_host(member, number) for number in range(len(member.places))]),
        circuit_breakers=_BREAKERS,
        outlier_detection=_OUTLIERS,
        # When all are left out, all are tried: nobody is refused because of what others, or a probe, met with.
        common_lb_config=_Cluster.CommonLbConfig(healthy_panic_threshold=percent_pb2.Percent(value=1)),
        transport_socket=tunnels.through(tls) if member.proxy else tls,
    )
    named = not member.proxy and not all(members.is_address(host) for host, _ in member.places)
    if named:
        _looked_up(cluster, bounds)
    if member.proxy:
        told["proxy"] = tunnels.shown(member.proxy)
    else:
        cluster.upstream_connection_options.CopyFrom(_KEPT_ALIVE)
    cluster.metadata.filter_metadata["onepass"].CopyFrom(proto.struct(told))
    options = _member_options(member, (destinationguard.of(bounds),) if named else ())
    if member.others:
        several.of(cluster, options, member, named=named)
    cluster.typed_extension_protocol_options[_OPTIONS].CopyFrom(proto.packed(options))
    return cluster


def proxy_cluster(member: ir.Member, proxy: ir.Proxy, system_trust: str, bounds: ir.Bounds) -> cluster_pb2.Cluster:
    """The proxy of a member, which is asked for one tunnel a connection."""
    cluster = _Cluster(
        name=tunnels.name(member),
        type=_Cluster.STATIC,
        connect_timeout=proto.seconds(_CONNECT),
        per_connection_buffer_limit_bytes=proto.u32(proto.MEBIBYTE),
        load_assignment=_endpoint(tunnels.name(member), proto.tcp(proxy.host, proxy.port)),
        circuit_breakers=_BREAKERS,
        upstream_connection_options=_KEPT_ALIVE,
    )
    filters: list[http_connection_manager_pb2.HttpFilter] = []
    if not members.is_address(proxy.host):
        _looked_up(cluster, bounds)
        filters.append(destinationguard.of(bounds))
    if proxy.tls:
        cluster.transport_socket.CopyFrom(tlscontexts.proxy(proxy, system_trust))
    if proxy.authorization:
        filters.append(tunnels.credential(member))
    options = _Options(
        common_http_protocol_options=_common(),
        explicit_http_config=_Options.ExplicitHttpConfig(http_protocol_options=protocol_pb2.Http1ProtocolOptions()),
        http_filters=[*filters, _codec()] if filters else [],
    )
    cluster.typed_extension_protocol_options[_OPTIONS].CopyFrom(proto.packed(options))
    return cluster


def tunnels_cluster() -> cluster_pb2.Cluster:
    """From the first to the second of the listeners that make tunnels."""
    return _Cluster(
        name=tunnels.OUT,
        type=_Cluster.STATIC,
        connect_timeout=proto.seconds(_CONNECT),
        per_connection_buffer_limit_bytes=proto.u32(proto.MEBIBYTE),
        load_assignment=_endpoint(tunnels.OUT, tunnels.out()),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[_many(connections=_STREAMS)]),
    )


def _looked_up(cluster: cluster_pb2.Cluster, bounds: ir.Bounds) -> None:
    """Each address a host of its own, which is judged before it is connected to: LOGICAL_DNS would judge the first and
    might then connect to any ("Happy Eyeballs"). One family, as no host is then one that cannot be reached."""
    cluster.type = _Cluster.STRICT_DNS
    cluster.dns_lookup_family = _Cluster.AUTO if bounds.ipv6 else _Cluster.V4_PREFERRED
    cluster.respect_dns_ttl = True
    cluster.dns_jitter.CopyFrom(proto.seconds(1))
    cluster.wait_for_warm_on_init.value = False  # a name that does not resolve holds up nobody's start


def _host(member: ir.Member, number: int) -> endpoint_components_pb2.LbEndpoint:
    place = member.places[number]
    if member.proxy:
        endpoint = endpoint_components_pb2.Endpoint(address=tunnels.address(member, number))
        return endpoint_components_pb2.LbEndpoint(endpoint=endpoint, metadata=tunnels.metadata(member, place))
    return _lb_endpoint(proto.tcp(*place))


def apiserver_cluster(path: str) -> cluster_pb2.Cluster:
    """The API server on its unix socket."""
    cluster = _Cluster(
        name=APISERVER,
        type=_Cluster.STATIC,
        connect_timeout=proto.seconds(_CONNECT),
        per_connection_buffer_limit_bytes=proto.u32(proto.MEBIBYTE),
        load_assignment=_endpoint(APISERVER, proto.pipe(path)),
        circuit_breakers=_BREAKERS,
    )
    options = _Options(
        common_http_protocol_options=_common(),
        explicit_http_config=_Options.ExplicitHttpConfig(http_protocol_options=protocol_pb2.Http1ProtocolOptions()),
    )
    cluster.typed_extension_protocol_options[_OPTIONS].CopyFrom(proto.packed(options))
    return cluster


def _many(connections: int) -> circuit_breaker_pb2.CircuitBreakers.Thresholds:
    return circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=proto.u32(connections),
        max_pending_requests=proto.u32(_STREAMS),
        max_requests=proto.u32(_STREAMS),
    )


def companions_cluster(path: str) -> cluster_pb2.Cluster:
    """The control plane as the keeper of companions, which are as many as there are open streams."""
    cluster = _Cluster(
        name=COMPANIONS,
        type=_Cluster.STATIC,
        connect_timeout=proto.seconds(_CONNECT),
        load_assignment=_endpoint(COMPANIONS, proto.pipe(path)),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[_many(connections=1000)]),
    )
    keepalive = protocol_pb2.KeepaliveSettings(interval=proto.seconds(30), timeout=proto.seconds(10))
    options = _Options(
        explicit_http_config=_Options.ExplicitHttpConfig(
            http2_protocol_options=protocol_pb2.Http2ProtocolOptions(connection_keepalive=keepalive)
        )
    )
    cluster.typed_extension_protocol_options[_OPTIONS].CopyFrom(proto.packed(options))
    return cluster


def issuer_name(source: ir.KeySource) -> str:
    return f"issuer/{source.host}:{source.port}/{hashlib.sha256(source.ca).hexdigest()[:8]}"


def issuer_clusters(issuers: Sequence[ir.Issuer], system_trust: str) -> Mapping[str, cluster_pb2.Cluster]:
    """Where Envoy fetches the keys of issuers, by name. One that is down, or does not resolve, holds up nobody."""
    sources = {issuer_name(each.source): each.source for each in issuers if each.source}
    return {name: _issuer_cluster(name, source, system_trust) for name, source in sorted(sources.items())}


def _issuer_cluster(name: str, source: ir.KeySource, system_trust: str) -> cluster_pb2.Cluster:
    literal = members.is_address(source.host)
    cluster = _Cluster(
        name=name,
        type=_Cluster.STATIC if literal else _Cluster.STRICT_DNS,
        connect_timeout=proto.seconds(_CONNECT),
        per_connection_buffer_limit_bytes=proto.u32(proto.MEBIBYTE),
        load_assignment=_endpoint(name, proto.tcp(source.host, source.port)),
        transport_socket=tlscontexts.issuer(source, system_trust),
    )
    if not literal:
        cluster.dns_lookup_family = _Cluster.ALL
        cluster.wait_for_warm_on_init.value = False
    options = _Options(
        common_http_protocol_options=_common(),
        explicit_http_config=_Options.ExplicitHttpConfig(http_protocol_options=protocol_pb2.Http1ProtocolOptions()),
    )
    cluster.typed_extension_protocol_options[_OPTIONS].CopyFrom(proto.packed(options))
    return cluster


def _common() -> protocol_pb2.HttpProtocolOptions:
    return protocol_pb2.HttpProtocolOptions(idle_timeout=proto.seconds(_IDLE))


def _member_options(
    member: ir.Member, filters: Sequence[http_connection_manager_pb2.HttpFilter]
) -> http_protocol_options_pb2.HttpProtocolOptions:
    """HTTP towards a member: requests as they came (1.1 or 2) where it offers both, so that upgrades stay on 1.1."""
    options = _Options(common_http_protocol_options=_common())
    if member.http2:
        options.use_downstream_protocol_config.http_protocol_options.SetInParent()
        options.use_downstream_protocol_config.http2_protocol_options.CopyFrom(_HTTP2)
    else:
        options.explicit_http_config.http_protocol_options.SetInParent()
    if member.credential.token:
        filters = [*filters, _injector(member)]
    if filters:
        options.http_filters.extend([*filters, _codec()])
    return options


def _injector(member: ir.Member) -> http_connection_manager_pb2.HttpFilter:
    """Sets the bearer token, over whatever the request brought, and lets nothing pass without one."""
    credential = generic_pb2.Generic(credential=tlscontexts.by_sds(tlscontexts.token_name(member)))
    injector = credential_injector_pb2.CredentialInjector(
        overwrite=True,
        credential=extension_pb2.TypedExtensionConfig(
            name="envoy.http.injected_credentials.generic", typed_config=proto.packed(credential)
        ),
    )
    return http_connection_manager_pb2.HttpFilter(name="credential", typed_config=proto.packed(injector))


def _codec() -> http_connection_manager_pb2.HttpFilter:
    return http_connection_manager_pb2.HttpFilter(
        name="codec", typed_config=proto.packed(upstream_codec_pb2.UpstreamCodec())
    )


def _endpoint(cluster: str, address: address_pb2.Address) -> endpoint_pb2.ClusterLoadAssignment:
    return _hosts(cluster, [_lb_endpoint(address)])


def _lb_endpoint(address: address_pb2.Address) -> endpoint_components_pb2.LbEndpoint:
    return endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=address))


def _hosts(cluster: str, hosts: Sequence[endpoint_components_pb2.LbEndpoint]) -> endpoint_pb2.ClusterLoadAssignment:
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=cluster, endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=hosts)]
    )
