"""Where Envoy listens: the gateway's TLS port, and a unix socket by which the prober reaches members."""

from collections.abc import Sequence

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2, protocol_pb2, socket_option_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from envoy.type.matcher.v3 import string_pb2

from onepass.gateway import auditlog, bootstrap, httpfilters, ir, proto, replies, routing, tlscontexts, upstreams

GATEWAY = bootstrap.LISTENER
FRONT = "extension"
PROBE = "probe"

_Manager = http_connection_manager_pb2.HttpConnectionManager
_Option = socket_option_pb2.SocketOption

# What only the gateway may say of a request. Cut off before Envoy or any filter looks at it.
# A kube-apiserver takes the source address of its audit log from X-Real-Ip as well as from X-Forwarded-For.
_FORGEABLE_PREFIXES = ("x-onepass-", "x-remote-", "x-envoy-", "x-forwarded-")
_FORGEABLE = ("forwarded", "x-real-ip", "x-request-id")
# Behind a front proxy, which has done already what a client asked by Impersonate-*.
_FORGEABLE_BEHIND_FRONT = ("x-onepass-", "x-envoy-", "x-forwarded-", "impersonate-")
_WINDOW = 256 * 1024  # bytes of an upload under way, as in a kube-apiserver
_FRONT_HEADERS = 1000  # a user of the host may be in many groups, each of which is a header

# SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT of Linux, inherited by what is accepted: a client that is
# gone without a word is noticed after a minute, and its watch ends.
_KEEPALIVE = tuple(
    _Option(level=level, name=name, int_value=value, state=_Option.STATE_PREBIND)
    for level, name, value in ((1, 9, 1), (6, 4, 30), (6, 5, 10), (6, 6, 3))
)


def gateway(listener: ir.Listener, audit_log: str) -> listener_pb2.Listener:
    """The port that clients use. Nothing in it changes with clusters or policy: a changed listener drains."""
    tls = tlscontexts.downstream(tlscontexts.CLIENT_CA if listener.client_ca else "")
    return _listener(GATEWAY, listener.host, listener.port, tls, _manager(audit_log), audit_log)


def front(front: ir.Front, audit_log: str) -> listener_pb2.Listener:
    """The port for the aggregator of a host cluster. No connection without a certificate of its authority.

    A path is served as it was judged, or not at all: what the host has read one way must not be read here in another.
    """
    manager = _manager(audit_log)
    manager.normalize_path.value = False
    manager.merge_slashes = False
    manager.common_http_protocol_options.max_headers_count.value = _FRONT_HEADERS
    del manager.http_filters[:], manager.early_header_mutation_extensions[:]
    manager.http_filters.extend(httpfilters.chain_of_front())
    manager.early_header_mutation_extensions.append(_cut(_FORGEABLE_BEHIND_FRONT, _FORGEABLE))
    tls = tlscontexts.downstream(tlscontexts.FRONT_CA, required=True)
    return _listener(FRONT, front.host, front.port, tls, manager, audit_log)


def _listener(
    name: str,
    host: str,
    port: int,
    tls: base_pb2.TransportSocket,
    manager: http_connection_manager_pb2.HttpConnectionManager,
    audit_log: str,
) -> listener_pb2.Listener:
    return listener_pb2.Listener(
        name=name,
        address=proto.tcp(host, port),
        per_connection_buffer_limit_bytes=proto.u32(proto.MEBIBYTE),
        socket_options=_KEEPALIVE,
        access_log=auditlog.of_connections(audit_log) if audit_log else [],
        filter_chains=[
            listener_components_pb2.FilterChain(
                filters=[_network(manager)],
                transport_socket=tls,
                transport_socket_connect_timeout=proto.seconds(10),
            )
        ],
    )


def probe(path: str) -> listener_pb2.Listener:
    """A request with `x-onepass-member: member/NAME` goes to that member, with its credential."""
    manager = _Manager(
        stat_prefix=PROBE,
        route_config=routing.of_probe(),
        http_filters=[httpfilters.router()],
        local_reply_config=replies.of_probe(),
        use_remote_address=proto.flag(False),
        skip_xff_append=True,
        generate_request_id=proto.flag(False),
    )
    return listener_pb2.Listener(
        name=PROBE,
        address=proto.pipe(path, 0o600),
        filter_chains=[listener_components_pb2.FilterChain(filters=[_network(manager)])],
    )


def _network(manager: http_connection_manager_pb2.HttpConnectionManager) -> listener_components_pb2.Filter:
    return listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=proto.packed(manager)
    )


def _manager(audit_log: str) -> http_connection_manager_pb2.HttpConnectionManager:
    return _Manager(
        stat_prefix=GATEWAY,
        # Paths: one reading of each, or none.
        normalize_path=proto.flag(True),
        merge_slashes=True,
        path_with_escaped_slashes_action=_Manager.REJECT_REQUEST,
        # Headers: nothing that a client says of itself or of the way it came.
        early_header_mutation_extensions=[_cut(_FORGEABLE_PREFIXES, _FORGEABLE)],
        use_remote_address=proto.flag(True),
        internal_address_config=_Manager.InternalAddressConfig(),
        forward_client_cert_details=_Manager.SANITIZE,
        server_header_transformation=_Manager.PASS_THROUGH,
        max_request_headers_kb=proto.u32(96),
        # Times: headers must come soon; streams may be quiet for long.
        request_headers_timeout=proto.seconds(10),
        request_timeout=proto.seconds(0),
        stream_idle_timeout=proto.seconds(routing.IDLE),
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=proto.seconds(3600),
            max_connection_duration=proto.seconds(3600),  # a new handshake asks the revocation list again
            max_headers_count=proto.u32(200),
            headers_with_underscores_action=protocol_pb2.HttpProtocolOptions.REJECT_REQUEST,
        ),
        http2_protocol_options=upstreams.http2(_WINDOW),
        upgrade_configs=[_Manager.UpgradeConfig(upgrade_type=kind) for kind in ("websocket", "spdy/3.1")],
        http_filters=httpfilters.chain(),
        route_config=routing.of_gateway(),
        local_reply_config=replies.of_gateway(),
        access_log=auditlog.of_requests(audit_log) if audit_log else [],
        access_log_options=_Manager.HcmAccessLogOptions(
            access_log_flush_interval=proto.seconds(auditlog.FIRST_RECORD),
            flush_log_on_tunnel_successfully_established=True,  # an exec is told when it begins, not only when it ends
        ),
    )


def _cut(prefixes: Sequence[str], names: Sequence[str]) -> extension_pb2.TypedExtensionConfig:
    matchers = [string_pb2.StringMatcher(prefix=prefix) for prefix in prefixes]
    matchers += [string_pb2.StringMatcher(exact=name) for name in names]
    mutation = mutation_rules_pb2.HeaderMutation
    cut = header_mutation_pb2.HeaderMutation(
        mutations=[mutation(remove_on_match=mutation.RemoveOnMatch(key_matcher=matcher)) for matcher in matchers]
    )
    return extension_pb2.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation", typed_config=proto.packed(cut)
    )
