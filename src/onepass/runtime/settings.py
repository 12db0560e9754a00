"""What an operator chooses, checked once at the border."""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from onepass.registry.execplugins import Plugin

DEFAULT_LISTEN = "127.0.0.1:6443"
DEFAULT_ISSUER = "https://onepass"
DEFAULT_EXTENSION_LISTEN = "127.0.0.1:6444"
MIN_MEMORY = 64 << 20


_DNS_NAME = re.compile(
    r"(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SOCKET_LIMIT = 107  # bytes of the path of a unix socket (sockaddr_un, unix(7))
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]{1,128}")  # RFC 9110 token; Envoy refuses underscores here


class SettingsError(ValueError):
    """A setting that cannot be; its text is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the gateway listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, flag: str = "--listen") -> "Listen":
        """`HOST:PORT`, `[V6]:PORT`; a host name is refused because Envoy binds addresses. Raises SettingsError."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") or "0.0.0.0" if colon else ""  # noqa: S104  ":6443" means every address, as in Go
        host = "127.0.0.1" if host == "localhost" else host
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise SettingsError(f"{flag} {text!r}: give an IP address and a port, for example 127.0.0.1:6443") from None
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise SettingsError(f"{flag} {text!r}: the port must be a number from 1 to 65535")
        return cls(host, int(port))

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def reachable(self) -> str:
        """The host as a client on this machine writes it: loopback where the gateway listens on every address."""
        address = ipaddress.ip_address(self.host)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "[::1]"
        return f"[{address}]" if address.version == 6 else str(address)

    @property
    def url(self) -> str:
        return f"https://{self.reachable}:{self.port}"


@dataclass(frozen=True, slots=True)
class Audit:
    """Where the audit log goes and how much of it is kept; the names are kube-apiserver's."""

    path: str = ""  # "" means audit.log in the data directory, "-" standard output
    maxsize: int = 100  # MiB at which a file is set aside
    maxbackup: int = 10  # how many of those that were set aside are kept; 0: all of them

    def __post_init__(self) -> None:
        if self.maxsize < 1:
            raise SettingsError(f"--audit-log-maxsize {self.maxsize}: give a number of megabytes, at least 1")
        if self.maxbackup < 0:
            raise SettingsError(f"--audit-log-maxbackup {self.maxbackup}: give how many files to keep, or 0 for all")


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a token, and what is put before its value."""

    claim: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An OpenID Connect provider whose ID tokens are taken."""

    url: str  # RFC 7519 `iss`, and where its discovery document is, unless `discovery_url` says otherwise
    audiences: tuple[str, ...]
    username: Claim
    groups: Claim | None = None
    required: tuple[tuple[str, str], ...] = ()  # claim and its value
    ca: bytes = b""  # PEM; empty: the system's trust store
    discovery_url: str = ""

    @property
    def document(self) -> str:
        return self.discovery_url or f"{self.url.rstrip('/')}/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class ServiceAccounts:
    """Who issues the tokens of service accounts; the names of the options are kube-apiserver's."""

    issuers: tuple[str, ...] = (DEFAULT_ISSUER,)  # RFC 7519 `iss`: new tokens have the first, and any of them is taken
    jwks_uri: str = ""  # where others find the keys; "" means below the issuer, or at the gateway for the usual one

    def __post_init__(self) -> None:
        for url in self.issuers:
            if why := why_no_url(url):
                raise SettingsError(f"--service-account-issuer {url!r}: the URL {why}")
        if self.jwks_uri and (why := why_no_url(self.jwks_uri)):
            raise SettingsError(f"--service-account-jwks-uri {self.jwks_uri!r}: the URL {why}")

    @property
    def issuer(self) -> str:
        """Of new tokens; also their audience when a request names none."""
        return self.issuers[0]

    def keys(self, gateway: str) -> str:
        """Where the discovery document says that the keys are; `gateway` is its URL."""
        at = gateway if self.issuer == DEFAULT_ISSUER else self.issuer.rstrip("/")
        return self.jwks_uri or f"{at}/openid/v1/jwks"


@dataclass(frozen=True, slots=True)
class SealKey:
    """Where a key comes from that credentials are sealed with: a file, the environment, or a KMS v2 plugin."""

    scheme: str  # file, env or unix
    place: str  # the absolute path of a file or of a socket, or the name of a variable

    @classmethod
    def parse(cls, text: str) -> "SealKey":
        """`file:PATH`, `env:NAME` or `unix:///PATH`. Raises SettingsError, which repeats no key given by mistake."""
        scheme, _, place = text.partition(":")
        if scheme == "file" and place:
            return cls(scheme, str(Path(place.removeprefix("//")).absolute()))
        if scheme == "env" and _VARIABLE.fullmatch(place):
            return cls(scheme, place)
        path = place.removeprefix("//")
        if scheme == "unix" and path.startswith("/") and len(path.encode()) <= _SOCKET_LIMIT:
            return cls(scheme, path)
        raise SettingsError("--seal-key: give file:PATH, env:NAME, or unix:///PATH of a KMS v2 plugin's socket")

    def __str__(self) -> str:
        return f"unix://{self.place}" if self.scheme == "unix" else f"{self.scheme}:{self.place}"


@dataclass(frozen=True, slots=True)
class EtcdAccess:
    """By what etcd knows the gateway, and the other way round; the names of the options are kube-apiserver's."""

    ca: Path | None = None  # None: the system's trust store
    certificate: Path | None = None
    key: Path | None = None
    user: str = ""
    password: Path | None = None  # a file
    compaction: float = 300.0  # seconds of history that are kept at least; 0 leaves it to etcd

    def __post_init__(self) -> None:
        if self.compaction and not 10 <= self.compaction <= 86400:
            raise SettingsError("--etcd-compaction-interval: give from 10s to 24h, or 0 to leave it to etcd")


@dataclass(frozen=True, slots=True)
class Extension:
    """How the gateway serves as an extension of a host cluster's API. The names of flags are kube-apiserver's.

    What tells the front proxy of the host is in files and flags, or else in a config map of the host.
    """

    listen: Listen
    passes: str = "ignore"  # or "narrow": what comes after the host's own decision
    client_ca_file: Path | None = None
    allowed_names: tuple[str, ...] = ()
    username_headers: tuple[str, ...] = ("X-Remote-User",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    extra_headers_prefix: tuple[str, ...] = ("X-Remote-Extra-",)
    kubeconfig: Path | None = None  # of the host; None: the service account of the pod that this runs in

    def __post_init__(self) -> None:
        if self.passes not in ("ignore", "narrow"):
            raise SettingsError(f"--extension-passes {self.passes!r}: give ignore or narrow")
        for flag, names in (
            ("username-headers", self.username_headers),
            ("group-headers", self.group_headers),
            ("uid-headers", self.uid_headers),
            ("extra-headers-prefix", self.extra_headers_prefix),
        ):
            for name in names:
                if not _HEADER.fullmatch(name):
                    raise SettingsError(f"--requestheader-{flag} {name!r}: give the name of a header")
        if not self.username_headers:
            raise SettingsError("--requestheader-username-headers: give at least one, such as X-Remote-User")

    @property
    def asks_host(self) -> bool:
        """Whether the host has to be asked who its front proxy is."""
        return self.client_ca_file is None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `onepass up` may be told."""

    data_dir: Path = Path(".onepass")
    listen: Listen = field(default_factory=lambda: Listen.parse(DEFAULT_LISTEN))
    storage: str = ""  # "" means sqlite in the data directory
    etcd: EtcdAccess = field(default_factory=EtcdAccess)
    sandbox: int = 0  # how many sandbox member clusters to run
    audit: Audit = field(default_factory=Audit)
    names: tuple[str, ...] = ()  # further DNS names and IP addresses for the serving certificate
    allow_endpoint_cidr: tuple[str, ...] = ()  # networks in which members may be; none means anywhere
    max_memory: int = 0  # bytes that Envoy's heap may reach; 0 means a share of what this machine or container has
    issuers: tuple[Issuer, ...] = ()
    keys_refresh: float = 60.0  # seconds between two looks at the keys of an issuer
    client_ca_file: Path | None = None  # further authorities whose client certificates are taken
    client_crl_file: Path | None = None  # what they took back
    exec_plugins: tuple[Plugin, ...] = ()  # programs by which members may get their credentials
    accounts: ServiceAccounts = field(default_factory=ServiceAccounts)
    extension: Extension | None = None
    seal_keys: tuple[SealKey, ...] = ()  # the first seals, all of them open; none: a file in the data directory
    kms_timeout: float = 3.0  # seconds that a call of a KMS plugin may take

    def __post_init__(self) -> None:
        if len(set(self.seal_keys)) != len(self.seal_keys):
            raise SettingsError("--seal-key: the same source is given twice")
        if not 0 < self.kms_timeout <= 60:
            raise SettingsError(f"--kms-timeout {self.kms_timeout:g}: give seconds, more than 0 and at most 60")
        if not 0 <= self.sandbox <= 16:
            raise SettingsError(f"--sandbox {self.sandbox}: from 0 to 16 sandbox member clusters can run here")
        if self.sandbox and not self.listen.loopback:
            raise SettingsError(
                "--sandbox: sandbox members run processes without isolation, only beside a gateway on loopback, "
                f"and this one is to listen on {self.listen.host}: leave out --sandbox, or --listen"
            )
        if self.max_memory and self.max_memory < MIN_MEMORY:
            raise SettingsError(f"--max-memory: at least {MIN_MEMORY >> 20} MiB are needed")
        _ = self.endpoint_cidrs
        for each in self.issuers:
            if each.url in self.accounts.issuers:
                raise SettingsError(
                    f"{each.url} issues the gateway's own tokens, and can be no OpenID Connect provider"
                )

        if self.extension and self.extension.listen == self.listen:
            raise SettingsError(
                f"--extension-listen {self.listen.host}:{self.listen.port}: that is the gateway's own port"
            )
        for name in self.names:
            if not _is_name(name):
                raise SettingsError(
                    f"--name {name!r}: give a DNS name or an IP address, for example gateway.example.com"
                )

    @property
    def endpoint_cidrs(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """Raises SettingsError for what is no network."""
        try:
            return tuple(ipaddress.ip_network(text) for text in self.allow_endpoint_cidr)
        except ValueError as error:
            raise SettingsError(f"--allow-endpoint-cidr: {error}; give networks such as 10.20.0.0/16") from None

    @property
    def audit_path(self) -> str:
        """An absolute path, or "-"."""
        if self.audit.path == "-":
            return "-"
        return str(Path(self.audit.path or self.data_dir / "audit.log").absolute())

    @property
    def storage_url(self) -> str:
        return self.storage or f"sqlite://{quote(str(self.data_dir.absolute() / 'onepass.db'))}"


def why_no_url(url: str) -> str:
    """What keeps a text from being the URL of an issuer (OpenID Connect Discovery 1.0, section 3); "" when nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme != "https" or not parts.hostname or port == 0:
        return "must begin with https://"
    if parts.username is not None or parts.query or parts.fragment or not url.isascii() or not url.isprintable():
        return "must not contain a user, a query or a fragment"
    return ""


def _is_name(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return len(name) <= 253 and _DNS_NAME.fullmatch(name) is not None
    return True
