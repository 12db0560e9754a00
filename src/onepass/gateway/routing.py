"""Five static routes, and one for what was not judged. Adding a member adds no route."""

from collections.abc import Mapping
from types import MappingProxyType

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf.any_pb2 import Any as Packed

from onepass.gateway import httpfilters, proto, replies, several, upstreams

ROUTE = "x-onepass-route"  # one of the four values below, set by the gatekeeper when it has decided
MEMBER = "x-onepass-member"  # the Envoy cluster, `member/NAME`
STREAM_ROUTE, MEMBER_ROUTE = "stream", "member"
APISERVER_STREAM_ROUTE, APISERVER_ROUTE = "apiserver-stream", "apiserver"

# Watches and quiet `logs -f` say nothing for a long time.
IDLE = 3600.0
STREAM_LIFE = 4 * 3600.0
_REQUEST_IDLE = 300.0

READS = "member-read"  # what is asked of a member by MEMBER_ROUTE and changes nothing

_NONE: Mapping[str, Packed] = MappingProxyType({})
_Action = route_components_pb2.RouteAction
_Match = route_components_pb2.RouteMatch
_Headers = route_components_pb2.HeaderMatcher


def of_gateway() -> route_pb2.RouteConfiguration:
    """The gatekeeper chooses by a header.

    A request that it has not judged, because it failed, has no such header: clients' own are cut off before.
    """
    unjudged = route_components_pb2.Route(
        name="unjudged",
        match=_Match(prefix="/"),
        # This route is also the one that a request has until it is judged, and without any Envoy would not refuse
        # upgrades to protocols that are not offered.
        direct_response=route_components_pb2.DirectResponseAction(status=500),
    )
    own = _Action(cluster=upstreams.APISERVER, timeout=proto.seconds(0), idle_timeout=proto.seconds(IDLE))
    return _configuration(
        "gateway",
        _route(
            STREAM_ROUTE,
            _Action(
                cluster_header=MEMBER,
                timeout=proto.seconds(0),
                idle_timeout=proto.seconds(IDLE),
                max_stream_duration=_Action.MaxStreamDuration(max_stream_duration=proto.seconds(STREAM_LIFE)),
            ),
            httpfilters.of_streams(),
        ),
        _reads(),
        _route(MEMBER_ROUTE, _request()),
        _route(APISERVER_STREAM_ROUTE, own, httpfilters.of_streams()),
        _route(APISERVER_ROUTE, own),
        unjudged,
    )


def of_probe() -> route_pb2.RouteConfiguration:
    """The prober names the member itself. What only Envoy may say of a member is cut off from what the member says."""
    route = route_components_pb2.Route(
        match=_Match(prefix="/"),
        route=_Action(cluster_header=MEMBER, timeout=proto.seconds(15)),
        request_headers_to_remove=[MEMBER],
        response_headers_to_remove=[replies.WHY],
    )
    return _configuration("probe", route)


def _configuration(name: str, *routes: route_components_pb2.Route) -> route_pb2.RouteConfiguration:
    everyone = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=routes)
    return route_pb2.RouteConfiguration(name=name, virtual_hosts=[everyone])


def _route(
    value: str, action: route_components_pb2.RouteAction, filters: Mapping[str, Packed] = _NONE
) -> route_components_pb2.Route:
    chosen = _Headers(name=ROUTE, string_match=string_pb2.StringMatcher(exact=value))
    return route_components_pb2.Route(
        name=value,
        match=_Match(prefix="/", headers=[chosen]),
        route=action,
        request_headers_to_remove=[ROUTE, MEMBER, "x-envoy-internal"],
        typed_per_filter_config=filters,
    )


def _request() -> route_components_pb2.RouteAction:
    return _Action(
        cluster_header=MEMBER,
        timeout=proto.seconds(0),  # a long list is not cut, a silent one is
        idle_timeout=proto.seconds(_REQUEST_IDLE),
    )


def _reads() -> route_components_pb2.Route:
    """What changes nothing is asked once more: when the member cannot have seen it, or closed the connection without a
    word, as it does with one that was idle. Clients that reach it themselves ask again then, too; of us they would hear
    a 502. `reset` stands in a header, as the policy of a member with several places replaces the one here, and goes for
    all methods."""
    action = _request()
    action.retry_policy.retry_on = several.SAFE
    action.retry_policy.num_retries.value = 1
    route = _route(MEMBER_ROUTE, action)
    route.name = READS
    method = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex="GET|HEAD"))
    route.match.headers.append(_Headers(name=":method", string_match=method))
    also = base_pb2.HeaderValue(key="x-envoy-retry-on", value="reset")
    route.request_headers_to_add.append(base_pb2.HeaderValueOption(header=also))
    return route
