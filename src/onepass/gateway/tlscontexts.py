"""TLS towards clients and towards members, and the secrets that both are fed with by SDS."""

import ipaddress
from collections.abc import Mapping

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.message import Message

from onepass.gateway import ir, proto

SERVING = "serving"
CLIENT_CA = "client-ca"
FRONT_CA = "front-proxy-ca"

_PARAMETERS = common_pb2.TlsParameters(
    tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2,
    # For TLS 1.2; those of 1.3 are not configurable. Forward secrecy and authenticated encryption only.
    cipher_suites=[
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ],
)
_Validation = common_pb2.CertificateValidationContext
_SanMatcher = common_pb2.SubjectAltNameMatcher


def client_name(member: ir.Member) -> str:
    return f"member/{member.name}/client"


def token_name(member: ir.Member) -> str:
    return f"member/{member.name}/token"


def by_sds(name: str) -> secret_pb2.SdsSecretConfig:
    return secret_pb2.SdsSecretConfig(name=name, sds_config=proto.from_ads())


def _socket(context: Message) -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=proto.packed(context))


def downstream(client_ca: str, *, required: bool = False) -> base_pb2.TransportSocket:
    """TLS of a port of the gateway; `client_ca` is the secret with the authorities of client certificates, or "".

    No session is resumed: a resumed one would skip the revocation list.
    """
    common = tls_pb2.CommonTlsContext(
        tls_params=_PARAMETERS,
        alpn_protocols=["h2", "http/1.1"],
        tls_certificate_sds_secret_configs=[by_sds(SERVING)],
    )
    if client_ca:
        common.validation_context_sds_secret_config.CopyFrom(by_sds(client_ca))
    return _socket(
        tls_pb2.DownstreamTlsContext(
            common_tls_context=common,
            require_client_certificate=proto.flag(required),
            disable_stateless_session_resumption=True,
            disable_stateful_session_resumption=True,
        )
    )


def upstream(member: ir.Member, system_trust: str) -> base_pb2.TransportSocket:
    """TLS towards a member. ALPN is left to the connection pool, which knows which HTTP it is for."""
    common = tls_pb2.CommonTlsContext(tls_params=_PARAMETERS)
    if member.credential.certificate:
        common.tls_certificate_sds_secret_configs.append(by_sds(client_name(member)))
    if member.insecure:
        common.validation_context.trust_chain_verification = _Validation.ACCEPT_UNTRUSTED
    else:
        common.validation_context.CopyFrom(_expected(member.server_name, member.ca, system_trust))
    return _towards(common, member.server_name)


def issuer(source: ir.KeySource, system_trust: str) -> base_pb2.TransportSocket:
    """TLS towards whoever publishes the keys of an issuer of tokens. Never without verification."""
    common = tls_pb2.CommonTlsContext(tls_params=_PARAMETERS, alpn_protocols=["http/1.1"])
    common.validation_context.CopyFrom(_expected(source.host, source.ca, system_trust))
    return _towards(common, source.host)


def proxy(proxy: ir.Proxy, system_trust: str) -> base_pb2.TransportSocket:
    """TLS towards an https:// proxy. Never without verification."""
    common = tls_pb2.CommonTlsContext(tls_params=_PARAMETERS, alpn_protocols=["http/1.1"])
    common.validation_context.CopyFrom(_expected(proxy.host, b"", system_trust))
    return _towards(common, proxy.host)


def _expected(server_name: str, ca: bytes, system_trust: str) -> common_pb2.CertificateValidationContext:
    address = _address(server_name)
    expected = _Validation(
        match_typed_subject_alt_names=[
            _SanMatcher(
                san_type=_SanMatcher.IP_ADDRESS if address else _SanMatcher.DNS,
                matcher=string_pb2.StringMatcher(exact=address or server_name),
            )
        ]
    )
    # In the cluster itself: it is no secret, and a secret of its own costs Envoy 7 KB a member.
    if ca:
        expected.trusted_ca.CopyFrom(proto.inline(ca))
    else:
        expected.trusted_ca.filename = system_trust
    return expected


def _towards(common: tls_pb2.CommonTlsContext, server_name: str) -> base_pb2.TransportSocket:
    return _socket(
        tls_pb2.UpstreamTlsContext(
            common_tls_context=common,
            sni="" if _address(server_name) else server_name,  # RFC 6066 section 3: no literal addresses
            max_session_keys=proto.u32(0),
        )
    )


def _address(host: str) -> str:
    """An IP address as Envoy writes those of certificates, or "" for a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def _certificate(name: str, chain: bytes, private_key: bytes) -> secret_pb2.Secret:
    certificate = common_pb2.TlsCertificate(
        certificate_chain=proto.inline(chain), private_key=proto.inline(private_key)
    )
    return secret_pb2.Secret(name=name, tls_certificate=certificate)


def member_secrets(member: ir.Member) -> Mapping[str, secret_pb2.Secret]:
    """What the Cluster of `member` asks for by SDS, by name."""
    credential = member.credential
    secrets: list[secret_pb2.Secret] = []
    if credential.certificate:
        secrets.append(_certificate(client_name(member), credential.certificate, credential.private_key))
    if credential.token:
        token = secret_pb2.GenericSecret(secret=proto.inline(f"Bearer {credential.token}".encode()))
        secrets.append(secret_pb2.Secret(name=token_name(member), generic_secret=token))
    return {secret.name: secret for secret in secrets}


def listener_secrets(listener: ir.Listener) -> Mapping[str, secret_pb2.Secret]:
    """What the gateway's own port asks for by SDS, by name."""
    secrets = {SERVING: _certificate(SERVING, listener.certificate, listener.private_key)}
    if listener.client_ca:
        clients = _Validation(trusted_ca=proto.inline(listener.client_ca))
        if listener.client_crl:
            clients.crl.CopyFrom(proto.inline(listener.client_crl))
            clients.only_verify_leaf_cert_crl = True
        secrets[CLIENT_CA] = secret_pb2.Secret(name=CLIENT_CA, validation_context=clients)
    return secrets


def front_secrets(front: ir.Front) -> Mapping[str, secret_pb2.Secret]:
    """What the port for a host cluster's aggregator asks for by SDS, beside the serving certificate."""
    authorities = _Validation(trusted_ca=proto.inline(front.ca))
    return {FRONT_CA: secret_pb2.Secret(name=FRONT_CA, validation_context=authorities)}
