"""The filters that a request passes, in order: who says they are whom, gatekeeper, judge of unusual answers, companion
of a stream, router."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

from envoy.config.core.v3 import config_source_pb2, extension_pb2, http_uri_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2, processing_mode_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import http_inputs_pb2, status_code_input_pb2
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from xds.core.v3 import extension_pb2 as xds_extension_pb2
from xds.type.matcher.v3 import matcher_pb2, string_pb2

from onepass.gateway import ir, proto, upstreams
from onepass.xds import companions

WEBSOCKET_TOKEN = "websocket-token"  # noqa: S105  the name of a filter
TOKENS = "tokens"
GATEKEEPER = "gatekeeper"
ANSWERS = "answers"
FRONT_GATEKEEPER = "gatekeeper/extension"
COMPANION = "companion"

_COMPANION_SECONDS = 5.0

_REFETCH_EARLY = 5.0  # seconds before the end of the cache's time in which Envoy fetches anew

_Filter = http_connection_manager_pb2.HttpFilter
_Mode = processing_mode_pb2.ProcessingMode
_Requirement = config_pb2.JwtRequirement
_Predicate = matcher_pb2.Matcher.MatcherList.Predicate


def chain() -> Sequence[http_connection_manager_pb2.HttpFilter]:
    """Two come by discovery, so that keys and policy change without a connection being drained."""
    return (
        _websocket_token(),
        _discovered(TOKENS, config_pb2.JwtAuthentication),
        _discovered(GATEKEEPER, lua_pb2.Lua),
        _answers(),
        _companion(),
        router(),
    )


def chain_of_front() -> Sequence[http_connection_manager_pb2.HttpFilter]:
    """For the aggregator of a host cluster, which has verified whatever its client came with, and takes that off."""
    return (_discovered(FRONT_GATEKEEPER, lua_pb2.Lua), _answers(), _companion(), router())


def _companion() -> http_connection_manager_pb2.HttpFilter:
    """Asks nothing, unless the route says that this is a stream (`of_streams`).

    It fails open: with no control plane to be asked, what the gatekeeper has allowed goes on. A control plane that is
    there and slow is waited for, because a stream that it does not know it cannot end.
    """
    config = ext_proc_pb2.ExternalProcessor(
        failure_mode_allow=True,
        processing_mode=_mode(headers=_Mode.SKIP, trailers=_Mode.SKIP),
        message_timeout=proto.seconds(_COMPANION_SECONDS),
        request_attributes=[companions.SOURCE],
    )
    config.grpc_service.envoy_grpc.cluster_name = upstreams.COMPANIONS
    config.metadata_options.forwarding_namespaces.untyped.append(companions.NAMESPACE)
    config.forward_rules.allowed_headers.patterns.add(exact="x-request-id")
    return _Filter(name=COMPANION, typed_config=proto.packed(config))


def of_streams() -> Mapping[str, Packed]:
    """What a route for streams changes: its request gets a companion, kept open for trailers that come at its end."""
    overrides = ext_proc_pb2.ExtProcOverrides(processing_mode=_mode(headers=_Mode.SEND, trailers=_Mode.SEND))
    return {COMPANION: proto.packed(ext_proc_pb2.ExtProcPerRoute(overrides=overrides))}


def _mode(
    headers: processing_mode_pb2.ProcessingMode.HeaderSendMode.ValueType,
    trailers: processing_mode_pb2.ProcessingMode.HeaderSendMode.ValueType,
) -> processing_mode_pb2.ProcessingMode:
    """No byte of a body goes anywhere."""
    return processing_mode_pb2.ProcessingMode(
        request_header_mode=headers,
        response_header_mode=_Mode.SKIP,
        request_body_mode=_Mode.NONE,
        response_body_mode=_Mode.NONE,
        request_trailer_mode=_Mode.SKIP,
        response_trailer_mode=trailers,
    )


def router() -> http_connection_manager_pb2.HttpFilter:
    return _Filter(name="router", typed_config=proto.packed(router_pb2.Router(suppress_envoy_headers=True)))


def extensions(
    issuers: Sequence[ir.Issuer], gatekeepers: Mapping[str, str]
) -> Mapping[str, extension_pb2.TypedExtensionConfig]:
    """What the discovered filters are configured with, by name. `gatekeepers` are Lua."""
    configs: dict[str, Message] = {TOKENS: _tokens(issuers)}
    for name, source in gatekeepers.items():
        code = lua_pb2.Lua()
        code.default_source_code.inline_string = source
        configs[name] = code
    return {
        name: extension_pb2.TypedExtensionConfig(name=name, typed_config=proto.packed(config))
        for name, config in configs.items()
    }


def _discovered(name: str, kind: type[Message]) -> http_connection_manager_pb2.HttpFilter:
    """No default: the listener opens when the filter is there, and without the filter no request passes."""
    return _Filter(
        name=name,
        config_discovery=config_source_pb2.ExtensionConfigSource(
            config_source=proto.from_ads(), type_urls=[proto.type_url(kind)]
        ),
    )


def script(name: str) -> str:
    """The Lua of a filter that does not depend on the policy."""
    return resources.files("onepass.gateway").joinpath(f"{name}.lua").read_text(encoding="utf-8")


def _websocket_token() -> http_connection_manager_pb2.HttpFilter:
    """Skipped, and so free, where no subprotocol is a token."""
    header = http_inputs_pb2.HttpRequestHeaderMatchInput(header_name="sec-websocket-protocol")
    token = string_pb2.StringMatcher(contains="base64url.bearer.authorization.k8s.io.")
    return _only_when(_matches("header", header, token), WEBSOCKET_TOKEN, script("websockettoken"))


def _answers() -> http_connection_manager_pb2.HttpFilter:
    """Skipped for the answers that need no look: all but redirects, changes of protocol and 401."""
    status = status_code_input_pb2.HttpResponseStatusCodeClassMatchInput()
    classes = [_matches("class", status, string_pb2.StringMatcher(exact=name)) for name in ("1xx", "3xx")]
    code = status_code_input_pb2.HttpResponseStatusCodeMatchInput()
    codes = [_matches("code", code, string_pb2.StringMatcher(exact="401"))]
    either = _Predicate(or_matcher=_Predicate.PredicateList(predicate=[*classes, *codes]))
    return _only_when(either, ANSWERS, script("answers"))


def _only_when(predicate: _Predicate, name: str, lua: str) -> http_connection_manager_pb2.HttpFilter:
    code = lua_pb2.Lua()
    code.default_source_code.inline_string = lua
    skip = matcher_pb2.Matcher.OnMatch(action=_xds("skip", skip_action_pb2.SkipFilter()))
    otherwise = _Predicate(not_matcher=predicate)
    field = matcher_pb2.Matcher.MatcherList.FieldMatcher(predicate=otherwise, on_match=skip)
    matched = extension_matcher_pb2.ExtensionWithMatcher(
        xds_matcher=matcher_pb2.Matcher(matcher_list=matcher_pb2.Matcher.MatcherList(matchers=[field])),
        extension_config=extension_pb2.TypedExtensionConfig(name=name, typed_config=proto.packed(code)),
    )
    return _Filter(name=name, typed_config=proto.packed(matched))


def _matches(name: str, source: Message, value: string_pb2.StringMatcher) -> _Predicate:
    return _Predicate(single_predicate=_Predicate.SinglePredicate(input=_xds(name, source), value_match=value))


def _xds(name: str, config: Message) -> xds_extension_pb2.TypedExtensionConfig:
    return xds_extension_pb2.TypedExtensionConfig(name=name, typed_config=proto.packed(config))


def _tokens(issuers: Sequence[ir.Issuer]) -> config_pb2.JwtAuthentication:
    """Verifies bearer tokens and leaves the claims to the gatekeeper, which answers 401 where they are wanted.

    The token stays on the request, by which the gatekeeper knows one that is not verified; it goes no further.
    """
    if not issuers:
        return config_pb2.JwtAuthentication()
    providers = {f"{number}/{how}": made for number, issuer in enumerate(issuers) for how, made in _providers(issuer)}
    asked = [_Requirement(provider_name=name) for name in providers]
    asked.append(_Requirement(allow_missing_or_failed=Empty()))
    requirement = _Requirement(requires_any=config_pb2.JwtRequirementOrList(requirements=asked))
    everywhere = route_components_pb2.RouteMatch(prefix="/")
    return config_pb2.JwtAuthentication(
        providers=providers, rules=[config_pb2.RequirementRule(match=everywhere, requires=requirement)]
    )


def _providers(issuer: ir.Issuer) -> Iterator[tuple[str, config_pb2.JwtProvider]]:
    """By the keys that are known, and by those that Envoy fetches in the background: a new key of the issuer is learned
    without a control plane, and an issuer that is away (Envoy forgets its keys) is known by the last ones."""
    if issuer.jwks:
        known = _provider(issuer)
        known.local_jwks.inline_string = issuer.jwks
        yield "known", known
    if issuer.source:
        fetched = _provider(issuer)
        fetched.remote_jwks.CopyFrom(_fetched(issuer.source))
        yield "fetched", fetched


def _fetched(source: ir.KeySource) -> config_pb2.RemoteJwks:
    host = f"[{source.host}]" if ":" in source.host else source.host
    return config_pb2.RemoteJwks(
        http_uri=http_uri_pb2.HttpUri(
            uri=f"https://{host}:{source.port}{source.path}",
            cluster=upstreams.issuer_name(source),
            timeout=proto.seconds(5),
        ),
        cache_duration=proto.seconds(source.refresh + _REFETCH_EARLY),
        async_fetch=config_pb2.JwksAsyncFetch(fast_listener=True, failed_refetch_duration=proto.seconds(2)),
    )


def _provider(issuer: ir.Issuer) -> config_pb2.JwtProvider:
    """Everything that a token must say, said strictly; only the Authorization header carries one."""
    return config_pb2.JwtProvider(
        issuer=issuer.issuer,
        audiences=issuer.audiences,
        require_expiration=True,
        clock_skew_seconds=10,
        from_headers=[config_pb2.JwtHeader(name="Authorization", value_prefix="Bearer ")],
        forward=True,
        payload_in_metadata="jwt_payload",
    )
