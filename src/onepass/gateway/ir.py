"""The intermediate representation: what the data plane should be, in terms that are neither Kubernetes' nor Envoy's.

Frozen, rebuilt whole and compared. Imports nothing of the other rooms but the compiled policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from onepass.access.policy import Policy


@dataclass(frozen=True, slots=True)
class Credential:
    """How Envoy proves itself to a member: a client certificate (PEM), a bearer token, both, or neither."""

    certificate: bytes = b""
    private_key: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Proxy:
    """Who is asked by HTTP CONNECT (RFC 9110, section 9.3.6) for a way to a member."""

    host: str  # a DNS name or an IP address without brackets
    port: int
    tls: bool = False  # itself reached by TLS, with a certificate that the system trusts
    authorization: str = field(default="", repr=False)  # what Proxy-Authorization says; empty: nothing


Place: TypeAlias = tuple[str, int]  # a DNS name or an IP address without brackets, and a port


@dataclass(frozen=True, slots=True)
class Member:
    """One member cluster as an upstream."""

    name: str
    host: str  # a DNS name or an IP address without brackets
    port: int
    server_name: str  # what the certificate must be for; also the SNI unless it is an IP address
    ca: bytes  # PEM; empty: the system's trust store
    insecure: bool  # no verification of the member's certificate
    http2: bool  # the member was seen to offer h2 by ALPN
    credential: Credential = field(default_factory=Credential, repr=False)
    others: tuple[Place, ...] = ()  # further places of the same API server
    health: str = ""  # path that tells whether one of several places serves
    proxy: Proxy | None = None

    @property
    def places(self) -> Sequence[Place]:
        return ((self.host, self.port), *self.others)


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where Envoy itself fetches a key set (RFC 7517), over TLS, and how often (seconds)."""

    host: str  # a DNS name or an IP address without brackets
    port: int
    path: str  # with the query
    ca: bytes = b""  # PEM; empty: the system's trust store
    refresh: float = 60.0


@dataclass(frozen=True, slots=True)
class Claims:
    """Which claims of a token name the user and the groups, and what is put before them."""

    username: str
    username_prefix: str = ""
    groups: str = ""  # empty: no groups
    groups_prefix: str = ""
    required: tuple[tuple[str, str], ...] = ()  # claim and the text that it must be


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose bearer tokens are taken: RFC 7519 `iss` and `aud`, and the key set (RFC 7517).

    `jwks` is the set as it was last seen, as JSON, `source` where Envoy fetches it as well: a token holds by either.
    Without `claims` they are tokens of our own service accounts.
    """

    issuer: str
    audiences: tuple[str, ...]
    jwks: str = ""
    source: KeySource | None = None
    claims: Claims | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the gatekeeper must know of authorities and issuers. Digests are the SHA-256 of an authority in hex,
    serial numbers lower-case hex without leading zeros."""

    own: frozenset[str] = frozenset()  # digests of our own client authorities; Policy.revoked is about theirs
    others: Mapping[str, frozenset[str]] = field(default_factory=dict)  # digest of another -> serials that it took back
    elsewhere: frozenset[str] = frozenset()  # serials taken back by authorities below those
    issuers: Mapping[str, Claims] = field(default_factory=dict)  # by `iss`


@dataclass(frozen=True, slots=True)
class Listener:
    """Where clients connect, and what it takes to know them."""

    host: str
    port: int
    certificate: bytes  # PEM chain of the serving certificate
    private_key: bytes = field(repr=False)
    client_ca: bytes = b""  # PEM bundle of the authorities whose client certificates are taken
    client_crl: bytes = b""  # PEM revocation lists, one for each of those authorities; or none at all
    issuers: tuple[Issuer, ...] = ()
    known: Known = field(default_factory=Known)


@dataclass(frozen=True, slots=True)
class Front:
    """Where the aggregator of a host cluster connects, and by what its front proxy is known.

    Header names are in lower case. `passes` says what comes after the host's own decision: "ignore", the host alone
    decides; "narrow", the gateway's rules must allow it too.
    """

    host: str
    port: int
    ca: bytes  # PEM bundle of the authorities of the front proxy's certificate
    allowed: tuple[str, ...] = ()  # common names that it may have; empty: any
    users: tuple[str, ...] = ("x-remote-user",)
    groups: tuple[str, ...] = ("x-remote-group",)
    uids: tuple[str, ...] = ("x-remote-uid",)
    extras: tuple[str, ...] = ("x-remote-extra-",)
    passes: Literal["ignore", "narrow"] = "ignore"
    withdrawn: tuple[str, ...] = ()  # digests of authorities that were in `ca`: connections of theirs may be open still


@dataclass(frozen=True, slots=True)
class Sockets:
    """Unix sockets on this machine, each 0600: the API server's, the prober's way to members through Envoy, and where
    the control plane keeps companions of open streams (empty: nowhere)."""

    apiserver: str
    probe: str
    companions: str = ""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where connections to members that have a name may go, whatever the name resolves to. Networks are CIDRs."""

    refused: tuple[tuple[str, int], ...] = ()  # a network and the port that is meant, 0 for every port
    allowed: tuple[str, ...] = ()  # empty: everywhere else
    ipv6: bool = False  # names are looked up in IPv6 first, because this machine has nothing else


@dataclass(frozen=True, slots=True)
class Gateway:
    """All of it."""

    listener: Listener
    sockets: Sockets
    policy: Policy
    front: Front | None = None
    audit_log: str = ""  # a file on Envoy's machine, or "-" for its standard output; empty: none
    system_trust: str = "/etc/ssl/certs/ca-certificates.crt"  # PEM file there, for members that name no CA
    bounds: Bounds = Bounds()
    members: Mapping[str, Member] = field(default_factory=dict)
