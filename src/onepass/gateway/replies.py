"""What Envoy itself answers, as a Kubernetes Status that kubectl prints as a sentence.

The gatekeeper's own refusals are Statuses already and pass unchanged. `code_details` are Envoy's names for what went
wrong (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from onepass.gateway import destinationguard, proto

# On the probe listener: that Envoy answers by itself, and why; one of the words below. No member can set it.
WHY = "x-onepass-why"
NOT_PUBLISHED = "NotPublished"  # Envoy has not heard of that member (yet)

_Mapper = http_connection_manager_pb2.ResponseMapper
_TOLD_BY_ENVOY = "%UPSTREAM_TRANSPORT_FAILURE_REASON%"
_DETAILS = "%RESPONSE_CODE_DETAILS%"
_NO_ANSWER = "response.code_details.startsWith('upstream_reset_before_response_started')"
_WHY_NOT = "upstream.transport_failure_reason"
_FAILED = f"{_NO_ANSWER} && {_WHY_NOT}"
# Set on the Envoy cluster of a member behind a proxy.
_PROXIED = "'proxy' in xds.cluster_metadata.filter_metadata['onepass']"
_PROXY = "%CLUSTER_METADATA(onepass:proxy)%"


@dataclass(frozen=True, slots=True)
class _Reply:
    """One row. `when` is CEL, `message` may use Envoy's command operators, `code` 0 keeps the code. `why` is told to
    the prober."""

    when: str
    code: int
    reason: str
    message: str
    why: str = "GatewayFailed"
    again: int = 0  # seconds after which clients may ask again, and client-go does


def _unreachable(cluster: str) -> Sequence[_Reply]:
    """Why a member did not answer; `cluster` is how the sentence calls it."""
    return (
        _Reply(
            f"{_FAILED}.contains('certificate has expired')",
            503,
            "ServiceUnavailable",
            f"{cluster} shows a certificate that has ended; an administrator must renew it, or the authority in its "
            "caBundle",
            "CertificateInvalid",
        ),
        _Reply(
            f"{_FAILED}.contains('CERTIFICATE_VERIFY_FAILED')",
            503,
            "ServiceUnavailable",
            f"{cluster} shows a certificate that is not trusted; an administrator must check its caBundle and "
            f"serverName ({_TOLD_BY_ENVOY})",
            "CertificateInvalid",
        ),
        _Reply(
            f"{_PROXIED} && {_NO_ANSWER} && response.code_details.contains('connection_failure') "
            f"&& (!{_WHY_NOT}.contains('TLS_error') || {_WHY_NOT}.contains('reset by peer'))",
            503,
            "ServiceUnavailable",
            f"{cluster} is unreachable: its proxy {_PROXY} does not answer, or refuses to lead there",
            "ProxyUnreachable",
        ),
        _Reply(
            f"{_PROXIED} && {_NO_ANSWER} && response.code_details.contains('connection_timeout')",
            503,
            "ServiceUnavailable",
            f"{cluster} is unreachable: no connection through its proxy {_PROXY} within 5 seconds",
            "Timeout",
        ),
        _Reply(
            f"{_PROXIED} && response.code_details == 'no_healthy_upstream'",
            503,
            "ServiceUnavailable",
            f"{cluster} is unreachable: the last attempts to connect to it through its proxy {_PROXY} all failed",
            "ProxyUnreachable",
        ),
        _Reply(
            f"{_FAILED}.contains('TLS_error')",
            503,
            "ServiceUnavailable",
            f"{cluster} is reached, but the TLS handshake with it fails; an administrator must check its endpoint and "
            f"client certificate ({_TOLD_BY_ENVOY})",
            "TLSFailed",
        ),
        _Reply(
            f"{_FAILED}.contains('Connection refused')",
            503,
            "ServiceUnavailable",
            f"{cluster} is unreachable: nothing listens at its endpoint",
            "ConnectionRefused",
        ),
        _Reply(
            f"{_NO_ANSWER} && response.code_details.contains('connection_timeout')",
            503,
            "ServiceUnavailable",
            f"{cluster} is unreachable: no connection within 5 seconds",
            "Timeout",
        ),
        _Reply(
            f"{_FAILED} != '' && response.code_details.contains('connection_failure')",
            503,
            "ServiceUnavailable",
            f"{cluster} is unreachable ({_TOLD_BY_ENVOY})",
            "Unreachable",
        ),
        _Reply(  # in TLS 1.3 who refuses a client certificate says so after the handshake, by closing the connection
            f"{_NO_ANSWER} && response.code_details.contains('connection_failure')",
            503,
            "ServiceUnavailable",
            f"{cluster} is unreachable: the connection is closed before anything is asked; an administrator must check "
            "its endpoint, and that it takes the gateway's client certificate",
            "Unreachable",
        ),
        _Reply(
            f"{_NO_ANSWER} && response.code_details.contains('overflow')",
            503,
            "ServiceUnavailable",
            f"too many requests to {cluster} are waiting already; try again later",
            "Overloaded",
        ),
        _Reply(
            f"{_NO_ANSWER} && response.code_details.contains('protocol_error')",
            502,
            "BadGateway",
            f"{cluster} does not speak HTTP as it should; an administrator must check its endpoint",
            "NotHTTP",
        ),
        _Reply(
            _NO_ANSWER,
            502,
            "BadGateway",
            f"{cluster} broke off the connection before it answered; whether it carried out the request is not known",
            "BrokenOff",
        ),
        _Reply(
            "response.code_details == 'no_healthy_upstream'",
            503,
            "ServiceUnavailable",
            f"{cluster} is unreachable: its name does not resolve, or the last attempts to connect to it all failed",
            "Unreachable",
        ),
        _Reply(
            f"response.code_details.startsWith('{destinationguard.DETAILS}')",
            503,
            "ServiceUnavailable",
            f"{cluster} is unreachable: its name leads to an address where no member may be",
            "EndpointForbidden",
        ),
        _Reply(
            "response.code_details == 'cluster_not_found'",
            503,
            "ServiceUnavailable",
            f"{cluster} is being set up; try again in a moment. If it stays so, its conditions say why",
            NOT_PUBLISHED,
            again=1,
        ),
        _Reply(
            "response.code_details.contains('credential')",
            503,
            "ServiceUnavailable",
            f"the credential for {cluster} is not there yet; try again in a moment",
            "NoCredential",
            again=1,
        ),
        _Reply(
            "response.code == 504 || response.code_details.endsWith('_timeout') && response.code != 408",
            504,
            "Timeout",
            f"{cluster} did not answer in time",
            "NoAnswer",
        ),
    )


_APISERVER = (
    _Reply(
        f"{_NO_ANSWER} || response.code_details == 'no_healthy_upstream'",
        503,
        "ServiceUnavailable",
        "the API server of OnePass does not answer, perhaps it is starting; requests to clusters are carried all the "
        "same",
    ),
    _Reply(
        "response.code_details == 'direct_response'",  # the route of what the gatekeeper has not judged
        500,
        "InternalError",
        "the gateway could not judge this request; its log says why",
    ),
)

_REFUSED = (
    _Reply(
        "response.code_details == 'path_normalization_failed'",
        400,
        "BadRequest",
        "the path must not contain encoded slashes or backslashes",
    ),
    _Reply(
        "response.code_details == 'upgrade_failed'",
        403,
        "Forbidden",
        "the connection can be upgraded to websocket or SPDY/3.1 only",
    ),
    _Reply("response.code == 408", 0, "Timeout", "the request did not arrive in time"),
    _Reply("response.code == 413", 0, "RequestEntityTooLarge", "the request is too large"),
    _Reply("response.code == 426", 0, "BadRequest", "HTTP/1.0 is not spoken here; use HTTP/1.1 or HTTP/2"),
    _Reply("response.code == 431", 0, "BadRequest", "the headers of the request are too large"),
    _Reply("response.code == 504", 0, "Timeout", "there was no answer in time"),
    _Reply(
        "response.code_details == 'overload'",
        503,
        "ServiceUnavailable",
        "the gateway is overloaded; try again later",
    ),
    _Reply("response.code == 400", 0, "BadRequest", f"the request is malformed: {_DETAILS}"),
    _Reply("response.code < 500", 0, "BadRequest", f"the gateway refuses the request: {_DETAILS}"),
    _Reply("true", 0, "InternalError", f"the gateway failed: {_DETAILS}"),
)


def of_gateway() -> http_connection_manager_pb2.LocalReplyConfig:
    """For the port that clients use."""
    about = 'cluster "%DYNAMIC_METADATA(onepass:cluster)%"'
    given = "'onepass' in metadata.filter_metadata && 'cluster' in metadata.filter_metadata['onepass']"
    return http_connection_manager_pb2.LocalReplyConfig(
        mappers=[
            _Mapper(filter=_when("response.code_details == 'lua_response'")),
            *(_mapper(reply, f"{given} && ({reply.when})") for reply in _unreachable(about)),
            *(_mapper(reply, reply.when) for reply in (*_APISERVER, *_REFUSED)),
        ]
    )


def of_probe() -> http_connection_manager_pb2.LocalReplyConfig:
    """For the prober, which knows whom it asked."""
    mappers = []
    for reply in (*_unreachable("the member"), *_REFUSED):
        mapper = _mapper(reply, reply.when)
        mapper.headers_to_add.append(base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=WHY, value=reply.why)))
        mappers.append(mapper)
    return http_connection_manager_pb2.LocalReplyConfig(mappers=mappers)


def _when(expression: str) -> accesslog_pb2.AccessLogFilter:
    cel = cel_pb2.ExpressionFilter(expression=expression)
    return accesslog_pb2.AccessLogFilter(
        extension_filter=accesslog_pb2.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel", typed_config=proto.packed(cel)
        )
    )


def _mapper(reply: _Reply, expression: str) -> http_connection_manager_pb2.ResponseMapper:
    status = proto.struct(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": reply.message,
            "reason": reply.reason,
            "code": "%RESPONSE_CODE%",  # alone in its string, so that it becomes a number
        }
    )
    mapper = _Mapper(
        filter=_when(expression),
        body_format_override=substitution_format_string_pb2.SubstitutionFormatString(
            json_format=status, content_type="application/json"
        ),
    )
    if reply.again:
        header = base_pb2.HeaderValue(key="retry-after", value=str(reply.again))
        mapper.headers_to_add.append(base_pb2.HeaderValueOption(header=header))
    if reply.code:
        mapper.status_code.value = reply.code
    return mapper
