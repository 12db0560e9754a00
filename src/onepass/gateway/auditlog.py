"""The audit log that Envoy writes: one JSON line for each request, in the shape of an `audit.k8s.io/v1` Event.

Who asked, for what, and what was decided comes from the gatekeeper's metadata (audit.lua), the rest from Envoy. Nothing
is taken from a header that a client can write, but the user agent, which is bounded. A stream has a second record, at
its start. What never reached the gatekeeper has a record that says as much as can be trusted.
"""

from collections.abc import Mapping, Sequence

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2, substitution_format_string_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as kinds_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.formatter.req_without_query.v3 import req_without_query_pb2
from envoy.type.matcher.v3 import metadata_pb2, value_pb2

from onepass.gateway import proto

STDOUT = "-"
FIRST_RECORD = 2.0  # seconds after which an open stream has its first record; the second would come after as many again

_Filter = accesslog_pb2.AccessLogFilter
_STREAM = "'onepass' in metadata.filter_metadata && 'stream' in metadata.filter_metadata['onepass']"
_UPGRADE = "'upgrade' in request.headers"
_END = kinds_pb2.AccessLogType.DownstreamEnd
_TUNNEL = kinds_pb2.AccessLogType.DownstreamTunnelSuccessfullyEstablished
_OPEN = kinds_pb2.AccessLogType.DownstreamPeriodic

_MOMENT = "(%Y-%m-%dT%H:%M:%S.%6fZ)%"
_EVENT: Mapping[str, proto.Value] = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "level": "Metadata",
    "sourceIPs": ["%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"],
    "requestReceivedTimestamp": f"%START_TIME{_MOMENT}",
    "stageTimestamp": f"%EMIT_TIME{_MOMENT}",
}


def _request(part: str) -> str:
    return f"%DYNAMIC_METADATA(onepass:request:{part})%"


_REQUEST: Mapping[str, proto.Value] = {
    "auditID": "%REQ(X-REQUEST-ID)%",
    "requestURI": _request("requestURI"),
    "verb": _request("verb"),
    "user": _request("user"),
    "impersonatedUser": _request("impersonatedUser"),
    "objectRef": _request("objectRef"),
    "userAgent": "%REQ(USER-AGENT):256%",
}
_DECIDED: Mapping[str, proto.Value] = {
    "authorization.k8s.io/decision": _request("decision"),
    "authorization.k8s.io/reason": _request("reason"),
    "access.karpor.io/cluster": _request("cluster"),
    "access.karpor.io/pass": _request("pass"),
}
# The values of annotations are strings, and a lone number would be written as one: hence the units.
_MEASURED: Mapping[str, proto.Value] = {
    "access.karpor.io/duration": "%DURATION%ms",
    "access.karpor.io/received": "%BYTES_RECEIVED%B",
    "access.karpor.io/sent": "%BYTES_SENT%B",
    "access.karpor.io/details": "%RESPONSE_CODE_DETAILS%",
    "access.karpor.io/flags": "%RESPONSE_FLAGS%",
    "access.karpor.io/protocol": "%PROTOCOL%",
}
_STATUS: Mapping[str, proto.Value] = {"code": "%RESPONSE_CODE%"}

_COMPLETE = {
    **_EVENT,
    **_REQUEST,
    "stage": "ResponseComplete",
    "responseStatus": _STATUS,
    "annotations": {**_DECIDED, **_MEASURED},
}
_BEGUN = {**_EVENT, **_REQUEST, "stage": "ResponseStarted", "responseStatus": _STATUS, "annotations": _DECIDED}
_UNJUDGED = {
    **_EVENT,
    "auditID": "%UNIQUE_ID%",
    "stage": "ResponseComplete",
    "requestURI": "%REQ_WITHOUT_QUERY(:PATH):1024%",
    "userAgent": "%REQ(USER-AGENT):256%",
    "responseStatus": _STATUS,
    "annotations": {"authorization.k8s.io/decision": "forbid", **_MEASURED},
}
_HANDSHAKE = {
    **_EVENT,
    "auditID": "%UNIQUE_ID%",
    "stage": "ResponseComplete",
    "annotations": {
        "authorization.k8s.io/decision": "forbid",
        "authorization.k8s.io/reason": "TLS handshake failed: %DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
        "access.karpor.io/duration": "%DURATION%ms",
    },
}


def of_requests(path: str) -> Sequence[accesslog_pb2.AccessLog]:
    """What the HTTP connection manager writes: the end of every request, and the start of a stream.

    A tunnel begins with its 101. Of other streams Envoy has nothing to say at their start but the first of the records
    that it writes from time to time, so that one is kept: a stream that is over before then has only the record at
    its end.
    """
    return (
        _log(path, _COMPLETE, _all(_kind(_END), _judged(True))),
        _log(path, _BEGUN, _all(_kind(_TUNNEL), _judged(True))),
        _log(path, _BEGUN, _all(_kind(_OPEN), _younger(2 * FIRST_RECORD), _when(f"{_STREAM} && !({_UPGRADE})"))),
        _log(path, _UNJUDGED, _all(_kind(_END), _judged(False))),
    )


def of_connections(path: str) -> Sequence[accesslog_pb2.AccessLog]:
    """What the listener writes: connections that never became any, because TLS failed."""
    return (_log(path, _HANDSHAKE, _when("connection.transport_failure_reason != ''")),)


def _log(path: str, record: Mapping[str, proto.Value], chosen: _Filter) -> accesslog_pb2.AccessLog:
    lines = substitution_format_string_pb2.SubstitutionFormatString(
        json_format=proto.struct(record), omit_empty_values=True
    )
    lines.formatters.append(
        extension_pb2.TypedExtensionConfig(
            name="envoy.formatter.req_without_query",
            typed_config=proto.packed(req_without_query_pb2.ReqWithoutQuery()),
        )
    )
    if path == STDOUT:
        stream = stream_pb2.StdoutAccessLog(log_format=lines)
        return accesslog_pb2.AccessLog(
            name="envoy.access_loggers.stdout", filter=chosen, typed_config=proto.packed(stream)
        )
    file = file_pb2.FileAccessLog(path=path, log_format=lines)
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.file", filter=chosen, typed_config=proto.packed(file))


def _all(*filters: _Filter) -> _Filter:
    return _Filter(and_filter=accesslog_pb2.AndFilter(filters=filters))


def _kind(kind: kinds_pb2.AccessLogType.ValueType) -> _Filter:
    return _Filter(log_type_filter=accesslog_pb2.LogTypeFilter(types=[kind]))


def _younger(seconds: float) -> _Filter:
    limit = base_pb2.RuntimeUInt32(default_value=round(seconds * 1000) - 1, runtime_key="onepass.audit.first_record")
    at_most = accesslog_pb2.ComparisonFilter(op=accesslog_pb2.ComparisonFilter.LE, value=limit)
    return _Filter(duration_filter=accesslog_pb2.DurationFilter(comparison=at_most))


def _judged(wanted: bool) -> _Filter:
    """Whether the gatekeeper said anything of the request. Asked of every one, for which CEL is too dear.

    Envoy asks `value` where the key is there, and takes the default where it is not.
    """
    present, never = value_pb2.ValueMatcher(present_match=True), value_pb2.ValueMatcher(bool_match=True)
    key = metadata_pb2.MetadataMatcher.PathSegment(key="request")
    matcher = metadata_pb2.MetadataMatcher(filter="onepass", path=[key], value=present if wanted else never)
    absent = proto.flag(not wanted)
    return _Filter(metadata_filter=accesslog_pb2.MetadataFilter(matcher=matcher, match_if_key_not_found=absent))


def _when(expression: str) -> _Filter:
    cel = cel_pb2.ExpressionFilter(expression=expression)
    return _Filter(
        extension_filter=accesslog_pb2.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel", typed_config=proto.packed(cel)
        )
    )
