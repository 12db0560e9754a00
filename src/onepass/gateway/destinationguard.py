"""Judges the address that a member's name led to, before a connection is made to it.

The upstream RBAC filter of Envoy runs when a host has been chosen and nothing has been sent:
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/upstream_rbac_filter
"""

import ipaddress

from envoy.config.core.v3 import address_pb2, extension_pb2
from envoy.config.rbac.v3 import rbac_pb2 as rules_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.rbac.matchers.upstream_ip_port.v3 import upstream_ip_port_matcher_pb2
from envoy.type.v3 import range_pb2
from google.protobuf.wrappers_pb2 import UInt32Value

from onepass.gateway import ir, proto

DETAILS = "rbac_access_denied"  # how the response code details of a refusal begin

_Permission = rules_pb2.Permission
_Matcher = upstream_ip_port_matcher_pb2.UpstreamIpPortMatcher


def of(bounds: ir.Bounds) -> http_connection_manager_pb2.HttpFilter:
    """The filter, for the head of an upstream filter chain."""
    permissions = [_to(network, port) for network, port in bounds.refused]
    if bounds.allowed:
        allowed = _Permission.Set(rules=[_to(network, 0) for network in bounds.allowed])
        permissions.append(_Permission(not_rule=_Permission(or_rules=allowed)))
    if not permissions:
        permissions.append(_Permission(not_rule=_Permission(any=True)))
    anybody = rules_pb2.Principal(any=True)
    policy = rules_pb2.Policy(permissions=permissions, principals=[anybody])
    rules = rules_pb2.RBAC(action=rules_pb2.RBAC.DENY, policies={"destination": policy})
    return http_connection_manager_pb2.HttpFilter(
        name="envoy.filters.http.upstream_rbac", typed_config=proto.packed(rbac_pb2.RBAC(rules=rules))
    )


def _to(network: str, port: int) -> rules_pb2.Permission:
    parsed = ipaddress.ip_network(network)
    matcher = _Matcher(
        upstream_ip=address_pb2.CidrRange(
            address_prefix=str(parsed.network_address), prefix_len=UInt32Value(value=parsed.prefixlen)
        ),
        upstream_port_range=range_pb2.Int64Range(start=port, end=port + 1) if port else None,
    )
    return _Permission(
        matcher=extension_pb2.TypedExtensionConfig(
            name="envoy.rbac.matchers.upstream_ip_port", typed_config=proto.packed(matcher)
        )
    )
