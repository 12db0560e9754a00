"""A member with several places: one that fails is left, and what cannot have reached it is asked of another."""

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import health_check_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import range_pb2

from onepass.gateway import ir, proto

SAFE = "connect-failure,refused-stream"  # what may be asked again, as nobody has seen it
_INTERVAL = 5.0
_TIMEOUT = 3.0
_RetryPolicy = route_components_pb2.RetryPolicy


def of(
    cluster: cluster_pb2.Cluster,
    options: http_protocol_options_pb2.HttpProtocolOptions,
    member: ir.Member,
    *,
    named: bool,
) -> None:
    """Makes a cluster one of several places. `named` ones are not asked how they are: such a question would go to
    whatever address the name leads to, as it passes no filter that judges it. Nor are those behind a proxy: Envoy asks
    in its main thread, from where no way leads into a tunnel, and would take all of them for dead, and so use those
    that outlier detection has left out."""
    options.retry_policy.CopyFrom(_retries(len(member.places)))
    cluster.outlier_detection.consecutive_local_origin_failure.value = 2
    if not named and not member.proxy:
        cluster.health_checks.append(_health(member))


def _retries(places: int) -> route_components_pb2.RetryPolicy:
    """What no place has seen is asked of the next one, whatever it is; reads also when a place broke off before it
    began to answer, which their route adds. This policy replaces the one of a route whole, and for all routes: it must
    hold for an exec, which arrives as GET.
    """
    elsewhere = _RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=proto.packed(previous_hosts_pb2.PreviousHostsPredicate()),
    )
    return _RetryPolicy(
        retry_on=SAFE,
        num_retries=proto.u32(places - 1),
        retry_host_predicate=[elsewhere],
        host_selection_retry_max_attempts=2 * places,
    )


def _health(member: ir.Member) -> health_check_pb2.HealthCheck:
    """Whoever answers is alive, also with 401 or 404: the question carries no token. 5xx is a server that is going."""
    return health_check_pb2.HealthCheck(
        timeout=proto.seconds(_TIMEOUT),
        interval=proto.seconds(_INTERVAL),
        interval_jitter_percent=20,
        no_traffic_interval=proto.seconds(_INTERVAL),
        no_traffic_healthy_interval=proto.seconds(_INTERVAL * 6),
        unhealthy_interval=proto.seconds(_INTERVAL),
        unhealthy_threshold=proto.u32(2),
        healthy_threshold=proto.u32(1),
        reuse_connection=proto.flag(True),
        http_health_check=health_check_pb2.HealthCheck.HttpHealthCheck(
            host=member.server_name,
            path=member.health,
            expected_statuses=[range_pb2.Int64Range(start=200, end=500)],
        ),
        tls_options=health_check_pb2.HealthCheck.TlsOptions(alpn_protocols=["http/1.1"]),
    )
