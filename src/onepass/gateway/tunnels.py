"""The way to a member behind an HTTP proxy: bytes of its TLS connections through a tunnel that CONNECT opens.

A member's Envoy cluster connects to a listener inside Envoy, which has no port. Behind it the member's proxy, an Envoy
cluster of its own, is asked for a tunnel, and what comes is carried through that. So TLS goes from Envoy to the member,
with HTTP/2 and upgrades as everywhere; the proxy sees neither, and no credential but its own.
https://www.envoyproxy.io/docs/envoy/latest/configuration/other_features/internal_listener
"""

from collections.abc import Mapping

from envoy.config.core.v3 import address_pb2, base_pb2, extension_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.credential_injector.v3 import credential_injector_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.http.injected_credentials.generic.v3 import generic_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf.message import Message

from onepass.gateway import ir, proto, tlscontexts

LISTENER = "tunnels"
OUT = "tunnels/out"
_TOLD = "onepass.tunnel"  # metadata of an endpoint: to whom the tunnel leads, and which Envoy cluster is asked for it
_PROXY = "x-onepass-proxy"  # between the two listeners: the Envoy cluster that is asked
_Manager = http_connection_manager_pb2.HttpConnectionManager
_Internal = internal_upstream_pb2.InternalUpstreamTransport


def name(member: ir.Member) -> str:
    """Of the Envoy cluster that is the member's proxy."""
    return f"tunnel/{member.name}"


def secret_name(member: ir.Member) -> str:
    return f"tunnel/{member.name}/credential"


def authority(place: ir.Place) -> str:
    """A place as CONNECT names it (RFC 9112, section 3.2.3)."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown(proxy: ir.Proxy) -> str:
    """A proxy in a sentence, without what is secret of it."""
    return f"{'https' if proxy.tls else 'http'}://{authority((proxy.host, proxy.port))}"


def address(member: ir.Member, number: int) -> address_pb2.Address:
    """The listener within, as the place `number` of a member."""
    inside = address_pb2.EnvoyInternalAddress(server_listener_name=LISTENER, endpoint_id=f"{member.name}/{number}")
    return address_pb2.Address(envoy_internal_address=inside)


def metadata(member: ir.Member, place: ir.Place) -> base_pb2.Metadata:
    told = proto.struct({"authority": authority(place), "cluster": name(member)})
    return base_pb2.Metadata(filter_metadata={_TOLD: told})


def through(socket: base_pb2.TransportSocket) -> base_pb2.TransportSocket:
    """The TLS of a member, over a connection that tells the listener within where it is to lead."""
    of_host = _Internal.MetadataValueSource(name=_TOLD)
    of_host.kind.host.SetInParent()
    inside = _Internal(passthrough_metadata=[of_host], transport_socket=socket)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.internal_upstream", typed_config=proto.packed(inside))


def listeners() -> Mapping[str, listener_pb2.Listener]:
    """For all members: the first makes a CONNECT of each connection, the second sends it to the proxy that it names.

    Two, because what Envoy's TCP proxy itself sends passes no HTTP filter, and so neither the judge of addresses nor
    who adds the credential: a switch that changes this crashes Envoy 1.40 when such a cluster goes.
    """
    tunnel = tcp_proxy_pb2.TcpProxy(
        stat_prefix=LISTENER,
        cluster=OUT,
        idle_timeout=proto.seconds(0),  # what is inside the tunnel has its own
        tunneling_config=tcp_proxy_pb2.TcpProxy.TunnelingConfig(
            hostname=f"%DYNAMIC_METADATA({_TOLD}:authority)%",
            headers_to_add=[_header(_PROXY, f"%DYNAMIC_METADATA({_TOLD}:cluster)%")],
        ),
    )
    manager = _Manager(
        stat_prefix=OUT,
        route_config=_routes(),
        http_filters=[
            http_connection_manager_pb2.HttpFilter(
                name="router", typed_config=proto.packed(router_pb2.Router(suppress_envoy_headers=True))
            )
        ],
        upgrade_configs=[_Manager.UpgradeConfig(upgrade_type="CONNECT")],
        use_remote_address=proto.flag(False),
        skip_xff_append=True,
        generate_request_id=proto.flag(False),
        stream_idle_timeout=proto.seconds(0),
    )
    return {
        LISTENER: _listener(LISTENER, "tcp_proxy", tunnel),
        OUT: _listener(OUT, "http_connection_manager", manager),
    }


def _routes() -> route_pb2.RouteConfiguration:
    match = route_components_pb2.RouteMatch(connect_matcher=route_components_pb2.RouteMatch.ConnectMatcher())
    action = route_components_pb2.RouteAction(
        cluster_header=_PROXY, timeout=proto.seconds(0), idle_timeout=proto.seconds(0)
    )
    route = route_components_pb2.Route(
        match=match, route=action, request_headers_to_remove=[_PROXY, "x-forwarded-proto"]
    )
    everyone = route_components_pb2.VirtualHost(name=OUT, domains=["*"], routes=[route])
    return route_pb2.RouteConfiguration(name=OUT, virtual_hosts=[everyone])


def _listener(name: str, kind: str, config: Message) -> listener_pb2.Listener:
    filters = [listener_components_pb2.Filter(name=f"envoy.filters.network.{kind}", typed_config=proto.packed(config))]
    return listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=proto.u32(proto.MEBIBYTE),
        filter_chains=[listener_components_pb2.FilterChain(filters=filters)],
    )


def _header(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value))


def out() -> address_pb2.Address:
    """Where the Envoy cluster `OUT` is: the second listener."""
    inside = address_pb2.EnvoyInternalAddress(server_listener_name=OUT)
    return address_pb2.Address(envoy_internal_address=inside)


def credential(member: ir.Member) -> http_connection_manager_pb2.HttpFilter:
    """Tells the proxy who asks, and asks nothing without that."""
    secret = generic_pb2.Generic(credential=tlscontexts.by_sds(secret_name(member)), header="Proxy-Authorization")
    injector = credential_injector_pb2.CredentialInjector(
        overwrite=True,
        credential=extension_pb2.TypedExtensionConfig(
            name="envoy.http.injected_credentials.generic", typed_config=proto.packed(secret)
        ),
    )
    return http_connection_manager_pb2.HttpFilter(name="credential", typed_config=proto.packed(injector))


def secret(member: ir.Member, proxy: ir.Proxy) -> secret_pb2.Secret:
    said = secret_pb2.GenericSecret(secret=proto.inline(proxy.authorization.encode()))
    return secret_pb2.Secret(name=secret_name(member), generic_secret=said)
