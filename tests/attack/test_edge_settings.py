"""The edge settings of docs/decisions/edge-settings.md, read from the running Envoy: each row is in force."""

import json
from collections.abc import Callable, Mapping
from typing import Any  # parsed JSON of Envoy's own

import pytest
from tests.attack.conftest import Site

pytestmark = pytest.mark.e2e

Settings = Mapping[str, Any]


def found(inside: Any, *path: str | int) -> Any:
    """What stands at a path in parsed JSON, or None."""
    for step in path:
        if isinstance(inside, dict):
            inside = inside.get(step)
        elif isinstance(inside, list) and isinstance(step, int) and step < len(inside):
            inside = inside[step]
        else:
            return None
    return inside


def named(entries: Any, name: str) -> Any:
    return next((each for each in entries or () if each.get("name") == name), None)


@pytest.fixture(scope="module")
def parts(site: Site) -> Mapping[str, Any]:
    """The running configuration by the parts that the table below speaks of."""
    dump = json.loads(site.admin_socket("/config_dump"))["configs"]
    by_type = {each["@type"].rpartition(".")[2]: each for each in dump}
    listeners = by_type["ListenersConfigDump"]["dynamic_listeners"]
    listener = named(listeners, "gateway")["active_state"]["listener"]
    chain = listener["filter_chains"][0]
    manager = chain["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    clusters = {
        each["cluster"]["name"]: each["cluster"] for each in by_type["ClustersConfigDump"]["dynamic_active_clusters"]
    }
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    bootstrap = by_type["BootstrapConfigDump"]["bootstrap"]
    secrets = by_type["SecretsConfigDump"]["dynamic_active_secrets"]
    return {
        "bootstrap": bootstrap,
        "overload": bootstrap["overload_manager"],
        "monitors": {each["name"].rpartition(".")[2]: each["typed_config"] for each in
                     bootstrap["overload_manager"]["resource_monitors"]},
        "actions": {each["name"].rpartition(".")[2]: each for each in bootstrap["overload_manager"]["actions"]},
        "points": {each["name"].rpartition(".")[2]: each for each in bootstrap["overload_manager"]["loadshed_points"]},
        "runtime": {name: entry["final_value"] for name, entry in
                    json.loads(site.admin_socket("/runtime"))["entries"].items()},
        "listener": listener,
        "chain": chain,
        "tls": chain["transport_socket"]["typed_config"],
        "manager": manager,
        "routes": {each["name"]: each["route"] for each in routes if "route" in each},
        "reads": next(each for each in routes if each.get("name") == "member-read"),
        "router": named(manager["http_filters"], "router")["typed_config"],
        "member": clusters["member/c2"],
        "protocol": clusters["member/c2"]["typed_extension_protocol_options"][options],
        "upstream tls": clusters["member/c2"]["transport_socket"]["typed_config"],
        "client ca": named(secrets, "client-ca")["secret"]["validation_context"],
    }  # fmt: skip


def above(share: float) -> Callable[[Any], bool]:
    return lambda action: bool(action["triggers"][0]["threshold"]["value"] == share)


def scaled(begin: float, full: float) -> Callable[[Any], bool]:
    return lambda action: bool(
        action["triggers"][0]["scaled"] == {"scaling_threshold": begin, "saturation_threshold": full}
    )


def absent(value: Any) -> bool:
    return value is None


MEBIBYTE = 1 << 20
HTTP2 = "http2_protocol_options"
COMMON = "common_http_protocol_options"
UPSTREAM2 = ("protocol", "use_downstream_protocol_config", HTTP2)
THRESHOLDS = ("member", "circuit_breakers", "thresholds", 0)
FLOODS = (
    "max_outbound_frames", "max_outbound_control_frames", "max_consecutive_inbound_frames_with_empty_payload",
    "max_inbound_priority_frames_per_stream", "max_inbound_window_update_frames_per_data_frame_sent",
)  # fmt: skip

ROWS: list[tuple[tuple[str | int, ...], Any]] = [
    (("bootstrap", "admin", "address", "pipe", "mode"), 0o600),
    (("bootstrap", "admin", "address", "socket_address"), absent),
    (("overload", "refresh_interval"), "0.250s"),
    (("monitors", "fixed_heap", "max_heap_size_bytes"), lambda size: int(size) >= 64 * MEBIBYTE),
    (
        ("monitors", "global_downstream_max_connections", "max_active_downstream_connections"),
        lambda count: 0 < int(count) <= 50_000,
    ),
    (("actions", "shrink_heap"), above(0.90)),
    (("actions", "disable_http_keepalive"), above(0.92)),
    (("actions", "stop_accepting_requests"), above(0.95)),
    (("actions", "stop_accepting_connections"), above(0.98)),
    (("actions", "reset_high_memory_stream"), scaled(0.90, 0.98)),
    (("actions", "reduce_timeouts"), scaled(0.85, 0.95)),
    (
        ("actions", "reduce_timeouts", "typed_config", "timer_scale_factors"),
        [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}],
    ),
    (("overload", "buffer_factory_config", "minimum_account_to_track_power_of_two"), 20),
    (("points", "tcp_listener_accept"), above(0.95)),
    (("points", "http2_server_go_away_on_dispatch"), above(0.97)),
    (("runtime", "overload.premature_reset_total_stream_count"), "200"),
    (("runtime", "overload.premature_reset_min_stream_lifetime_seconds"), "1"),
    (("runtime", "http.max_requests_per_io_cycle"), "10"),
    (("runtime", "envoy.resource_limits.listener.gateway.connection_limit"), lambda count: 0 < int(count) <= 50_000),
    (("listener", "per_connection_buffer_limit_bytes"), MEBIBYTE),
    (("member", "per_connection_buffer_limit_bytes"), MEBIBYTE),
    (("chain", "transport_socket_connect_timeout"), "10s"),
    (("manager", "use_remote_address"), True),
    (("manager", "xff_num_trusted_hops"), absent),
    (("manager", "internal_address_config"), {}),
    (("manager", "normalize_path"), True),
    (("manager", "merge_slashes"), True),
    (("manager", "path_with_escaped_slashes_action"), "REJECT_REQUEST"),
    (("manager", COMMON, "headers_with_underscores_action"), "REJECT_REQUEST"),
    (("manager", COMMON, "idle_timeout"), "3600s"),
    (("manager", COMMON, "max_connection_duration"), "3600s"),
    (("manager", COMMON, "max_headers_count"), 200),
    (("manager", "max_request_headers_kb"), 96),
    (("manager", "request_headers_timeout"), "10s"),
    (("manager", "request_timeout"), "0s"),
    (("manager", "stream_idle_timeout"), "3600s"),
    (("manager", "forward_client_cert_details"), absent),  # SANITIZE is the default
    (("manager", "server_header_transformation"), "PASS_THROUGH"),
    (("manager", "proxy_100_continue"), absent),
    (("manager", "access_log_options", "flush_log_on_tunnel_successfully_established"), True),
    (("manager", HTTP2, "max_concurrent_streams"), 250),
    (("manager", HTTP2, "initial_stream_window_size"), MEBIBYTE // 4),
    (("manager", HTTP2, "initial_connection_window_size"), 250 * MEBIBYTE // 4),
    (("manager", HTTP2, "connection_keepalive"), {"interval": "30s", "timeout": "10s"}),
    *((("manager", HTTP2, each), absent) for each in FLOODS),
    (("router", "suppress_envoy_headers"), True),
    *((("routes", each, "timeout"), "0s") for each in ("stream", "member", "member-read", "apiserver")),
    (("routes", "stream", "idle_timeout"), "3600s"),
    (("routes", "stream", "max_stream_duration", "max_stream_duration"), "14400s"),
    (("routes", "stream", "retry_policy"), absent),
    (("routes", "apiserver", "retry_policy"), absent),
    (("routes", "member", "retry_policy"), absent),
    (("routes", "member-read", "retry_policy", "retry_on"), "connect-failure,refused-stream"),
    (("routes", "member-read", "retry_policy", "num_retries"), 1),
    (("reads", "match", "headers", 1, "name"), ":method"),
    (("reads", "match", "headers", 1, "string_match", "safe_regex", "regex"), "GET|HEAD"),
    (("reads", "request_headers_to_add", 0, "header", "key"), "x-envoy-retry-on"),
    (("reads", "request_headers_to_add", 0, "header", "value"), "reset"),
    (("tls", "common_tls_context", "tls_params", "tls_minimum_protocol_version"), "TLSv1_2"),
    (("tls", "common_tls_context", "alpn_protocols"), ["h2", "http/1.1"]),
    (("tls", "require_client_certificate"), False),
    (("tls", "disable_stateless_session_resumption"), True),
    (("tls", "disable_stateful_session_resumption"), True),
    (("client ca", "crl"), lambda crl: crl is not None),
    (("client ca", "only_verify_leaf_cert_crl"), True),
    (("member", "connect_timeout"), "5s"),
    ((*THRESHOLDS, "max_connections"), 10_000),
    ((*THRESHOLDS, "max_pending_requests"), 10_000),
    ((*THRESHOLDS, "max_requests"), 20_000),
    ((*THRESHOLDS, "track_remaining"), True),
    (
        ("member", "upstream_connection_options", "tcp_keepalive"),
        {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3},
    ),
    (("protocol", COMMON, "idle_timeout"), "60s"),
    ((*UPSTREAM2, "initial_stream_window_size"), MEBIBYTE),
    ((*UPSTREAM2, "initial_connection_window_size"), 250 * MEBIBYTE),
    ((*UPSTREAM2, "max_concurrent_streams"), 250),
    ((*UPSTREAM2, "connection_keepalive"), {"interval": "30s", "timeout": "10s"}),
    (("upstream tls", "common_tls_context", "tls_params", "tls_minimum_protocol_version"), "TLSv1_2"),
    (("upstream tls", "max_session_keys"), 0),
    (("upstream tls", "common_tls_context", "validation_context", "trusted_ca"), lambda ca: ca is not None),
    (
        ("upstream tls", "common_tls_context", "validation_context", "match_typed_subject_alt_names"),
        [{"san_type": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}}],
    ),
]


@pytest.mark.parametrize(("path", "expected"), ROWS, ids=["/".join(map(str, path)) for path, _ in ROWS])
def test_in_force(parts: Settings, path: tuple[str | int, ...], expected: Any) -> None:
    value = found(parts, *path)
    if callable(expected):
        assert expected(value), value
    else:
        assert value == expected


def test_the_table_speaks_of_parts_that_are_there(parts: Settings) -> None:
    """An absent setting must be absent from something."""
    for path, _ in ROWS:
        assert found(parts, path[0]) is not None, path
    for each in ("stream", "member", "apiserver"):
        assert parts["routes"][each]
    assert parts["manager"][HTTP2]


def test_the_overload_manager_has_not_struck(site: Site) -> None:
    """Its monitors run: the pressure of the heap is known, and below what it acts on."""
    stats = json.loads(site.admin_socket("/stats?format=json&filter=overload"))["stats"]
    known = {each["name"]: each["value"] for each in stats if "value" in each}
    pressure = [value for name, value in known.items() if name.endswith("fixed_heap.pressure")]
    assert pressure
    assert all(0 <= value < 85 for value in pressure)
