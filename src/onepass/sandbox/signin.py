"""Who asks a member: a client certificate, the token that the member made for its gateway, or a service account's."""

import hmac
from collections.abc import Awaitable, Callable, Mapping

from cryptography import x509
from cryptography.x509.oid import NameOID
from starlette.requests import HTTPConnection

from onepass.access.identity import AUTHENTICATED, Identity
from onepass.api import errors

Account = Callable[[str], Awaitable[Identity | None]]  # whose token of a service account this is; None: of none


class SignIn:
    """`tokens` holds the users of static tokens; certificates were checked by TLS against the member's authority."""

    def __init__(self, tokens: Mapping[str, Identity], account: Account) -> None:
        self._tokens = tokens
        self._account = account

    async def __call__(self, connection: HTTPConnection) -> Identity | None:
        """The user of a request, or None when it carries no credential. Raises unauthorized for a wrong one."""
        header = connection.headers.get("authorization")
        if header is not None:
            return await self._by_token(header)
        chain = connection.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", [])
        return by_certificate(chain[0]) if chain else None

    async def _by_token(self, header: str) -> Identity:
        scheme, _, token = header.partition(" ")
        identity = None
        if scheme.lower() == "bearer":
            identity = self.known(token.strip()) or await self._account(token.strip())
        if identity is None:
            raise errors.unauthorized()
        return identity

    def known(self, token: str) -> Identity | None:
        """Whose static token it is; None for any other."""
        given = token.encode()
        for known, identity in self._tokens.items():
            if hmac.compare_digest(known.encode(), given):
                return identity
        return None


def by_certificate(pem: str) -> Identity:
    """The common name is the user, each organization a group. Raises unauthorized for a subject without a name."""
    subject = x509.load_pem_x509_certificate(pem.encode()).subject
    names = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(names) != 1 or not names[0]:
        raise errors.unauthorized()
    groups = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return Identity(names[0], (*dict.fromkeys(groups), AUTHENTICATED))
