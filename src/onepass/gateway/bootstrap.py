"""What Envoy is started with: who it is, where its discovery service is, and its own limits. All else comes by ADS."""

from dataclasses import dataclass

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import (
    backoff_pb2,
    base_pb2,
    config_source_pb2,
    extension_pb2,
    grpc_service_pb2,
    protocol_pb2,
)
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.metrics.v3 import stats_pb2
from envoy.config.overload.v3 import overload_pb2
from envoy.extensions.bootstrap.internal_listener.v3 import internal_listener_pb2
from envoy.extensions.network.dns_resolver.cares.v3 import cares_dns_resolver_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from onepass.gateway import proto

LISTENER = "gateway"  # the one that clients use
_ADS = "ads"
_HEAP = "envoy.resource_monitors.fixed_heap"
_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"
_Options = http_protocol_options_pb2.HttpProtocolOptions
_Action = overload_pb2.OverloadAction
_Timers = overload_pb2.ScaleTimersOverloadActionConfig

# What operators look at; a fleet of 5,000 members cannot afford every counter of each.
_STATS_PREFIXES = (
    "http.gateway.",
    "http2.",
    "listener.",
    "server.",
    "control_plane.",
    "cluster_manager.",
    "overload.",
    "filesystem.",  # whether the audit log can be written
)
_STATS_SUFFIXES = (
    ".upstream_cx_active",
    ".upstream_cx_connect_fail",
    ".upstream_rq_active",
    ".upstream_rq_total",
    ".upstream_rq_5xx",
)

_RUNTIME: dict[str, proto.Value] = {
    # HTTP/2 rapid reset (CVE-2023-44487): a client that resets this many young streams is cut off.
    "overload.premature_reset_total_stream_count": 200,
    "overload.premature_reset_min_stream_lifetime_seconds": 1,
    # One connection with many requests waits for the others after this many.
    "http.max_requests_per_io_cycle": 10,
}


@dataclass(frozen=True, slots=True)
class Start:
    """What differs between two Envoys. Sockets are paths; sizes are bytes."""

    node: str
    ads: str
    admin: str
    max_heap: int = 2 * 1024 * proto.MEBIBYTE
    max_connections: int = 50_000
    resolver: tuple[str, int] | None = None  # the name server to ask; None: those of this machine


def document(start: Start) -> str:
    """The bootstrap as JSON."""
    limit = {f"envoy.resource_limits.listener.{LISTENER}.connection_limit": start.max_connections}
    bootstrap = bootstrap_pb2.Bootstrap(
        node=base_pb2.Node(id=start.node, cluster="onepass"),
        admin=bootstrap_pb2.Admin(address=proto.pipe(start.admin, 0o600)),
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(clusters=[_ads_cluster(start.ads)]),
        dynamic_resources=bootstrap_pb2.Bootstrap.DynamicResources(
            ads_config=_ads_config(), cds_config=proto.from_ads(), lds_config=proto.from_ads()
        ),
        cluster_manager=bootstrap_pb2.ClusterManager(enable_deferred_cluster_creation=True),
        deferred_stat_options=bootstrap_pb2.Bootstrap.DeferredStatOptions(enable_deferred_creation_stats=True),
        stats_config=_stats(),
        overload_manager=_overload(start),
        bootstrap_extensions=[
            extension_pb2.TypedExtensionConfig(
                name="envoy.bootstrap.internal_listener",  # tunnels to members behind a proxy
                typed_config=proto.packed(internal_listener_pb2.InternalListener()),
            )
        ],
        layered_runtime=bootstrap_pb2.LayeredRuntime(
            layers=[bootstrap_pb2.RuntimeLayer(name="onepass", static_layer=proto.struct(_RUNTIME | limit))]
        ),
    )
    if start.resolver:
        bootstrap.typed_dns_resolver_config.CopyFrom(_resolver(*start.resolver))
    return json_format.MessageToJson(bootstrap, preserving_proto_field_name=True)


def _resolver(host: str, port: int) -> extension_pb2.TypedExtensionConfig:
    cares = cares_dns_resolver_pb2.CaresDnsResolverConfig(resolvers=[proto.tcp(host, port)])
    return extension_pb2.TypedExtensionConfig(name="envoy.network.dns_resolver.cares", typed_config=proto.packed(cares))


def _ads_config() -> config_source_pb2.ApiConfigSource:
    # A control plane that restarts is found again within two seconds, rather than the thirty of the default.
    again = base_pb2.RetryPolicy(
        retry_back_off=backoff_pb2.BackoffStrategy(base_interval=proto.seconds(0.1), max_interval=proto.seconds(2))
    )
    service = grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=_ADS, retry_policy=again)
    )
    return config_source_pb2.ApiConfigSource(
        api_type=config_source_pb2.ApiConfigSource.DELTA_GRPC,
        transport_api_version=config_source_pb2.ApiVersion.V3,
        grpc_services=[service],
        set_node_on_first_message_only=True,
    )


def _ads_cluster(path: str) -> cluster_pb2.Cluster:
    host = endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=proto.pipe(path)))
    cluster = cluster_pb2.Cluster(
        name=_ADS,
        type=cluster_pb2.Cluster.STATIC,
        connect_timeout=proto.seconds(2),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=_ADS, endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[host])]
        ),
    )
    keepalive = protocol_pb2.KeepaliveSettings(interval=proto.seconds(30), timeout=proto.seconds(10))
    http2 = _Options(
        explicit_http_config=_Options.ExplicitHttpConfig(
            http2_protocol_options=protocol_pb2.Http2ProtocolOptions(connection_keepalive=keepalive)
        )
    )
    options = cluster.typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
    options.CopyFrom(proto.packed(http2))
    return cluster


def _stats() -> stats_pb2.StatsConfig:
    wanted = [string_pb2.StringMatcher(prefix=prefix) for prefix in _STATS_PREFIXES]
    wanted += [string_pb2.StringMatcher(suffix=suffix) for suffix in _STATS_SUFFIXES]
    inclusion = string_pb2.ListStringMatcher(patterns=wanted)
    return stats_pb2.StatsConfig(stats_matcher=stats_pb2.StatsMatcher(inclusion_list=inclusion))


def _overload(start: Start) -> overload_pb2.OverloadManager:
    """What gives way as the heap fills: first memory is handed back, then idle and greedy clients, then new ones.

    Stream idle timeouts are never shortened: that would cut watches.
    """
    timers = _Timers(
        timer_scale_factors=[
            _Timers.ScaleTimer(timer=_Timers.HTTP_DOWNSTREAM_CONNECTION_IDLE, min_timeout=proto.seconds(2))
        ]
    )
    reduce = _Action(
        name="envoy.overload_actions.reduce_timeouts", triggers=[_scaled(0.85, 0.95)], typed_config=proto.packed(timers)
    )
    return overload_pb2.OverloadManager(
        refresh_interval=proto.seconds(0.25),
        resource_monitors=[
            _monitor(_HEAP, fixed_heap_pb2.FixedHeapConfig(max_heap_size_bytes=start.max_heap)),
            _monitor(
                _CONNECTIONS,
                downstream_connections_pb2.DownstreamConnectionsConfig(
                    max_active_downstream_connections=start.max_connections
                ),
            ),
        ],
        actions=[
            reduce,
            _Action(name="envoy.overload_actions.shrink_heap", triggers=[_above(0.90)]),
            _Action(name="envoy.overload_actions.reset_high_memory_stream", triggers=[_scaled(0.90, 0.98)]),
            _Action(name="envoy.overload_actions.disable_http_keepalive", triggers=[_above(0.92)]),
            _Action(name="envoy.overload_actions.stop_accepting_requests", triggers=[_above(0.95)]),
            _Action(name="envoy.overload_actions.stop_accepting_connections", triggers=[_above(0.98)]),
        ],
        loadshed_points=[
            overload_pb2.LoadShedPoint(name="envoy.load_shed_points.tcp_listener_accept", triggers=[_above(0.95)]),
            overload_pb2.LoadShedPoint(
                name="envoy.load_shed_points.http2_server_go_away_on_dispatch", triggers=[_above(0.97)]
            ),
        ],
        # Buffers from 1 MiB on are counted against their stream, which is what may be reset.
        buffer_factory_config=overload_pb2.BufferFactoryConfig(minimum_account_to_track_power_of_two=20),
    )


def _monitor(name: str, config: Message) -> overload_pb2.ResourceMonitor:
    return overload_pb2.ResourceMonitor(name=name, typed_config=proto.packed(config))


def _above(share: float) -> overload_pb2.Trigger:
    return overload_pb2.Trigger(name=_HEAP, threshold=overload_pb2.ThresholdTrigger(value=share))


def _scaled(begin: float, full: float) -> overload_pb2.Trigger:
    return overload_pb2.Trigger(
        name=_HEAP, scaled=overload_pb2.ScaledTrigger(scaling_threshold=begin, saturation_threshold=full)
    )
