"""What a Cluster needs, read out of a user's kubeconfig (client-go's clientcmd API, v1).

Everything the gateway could not use, or could not use for long, is refused with a sentence that says what to do.
"""

import base64
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import jwt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import durations
from onepass.cli.failure import Failure
from onepass.pki import lifetimes
from onepass.pki.execcredential import Issued
from onepass.registry import destinations, proxies

_JOIN = """give OnePass a service account of its own on that cluster; this makes one, and keeps nothing of yours:
  onepass cluster join {2} --kubeconfig {1} --context {0}"""
_OTHER = (
    "take another context of that cluster: one whose user has a client certificate or a token, or, for "
    "onepass cluster join, logs in by a program"
)
_MEND = "mend that in the kubeconfig, until kubectl works with this context"
_NAME = "name the member's kubeconfig with --kubeconfig; of a list, as KUBECONFIG may be, one file"
Login = Callable[[str, Object, Path, Object], Issued]  # who logs in, the exec entry, its folder, the cluster's entry
_SOON = timedelta(seconds=lifetimes.SOON)
_LARGEST = 4 << 20  # bytes; thousands of contexts


@dataclass(frozen=True, slots=True)
class Access:
    """How one context reaches its cluster. PEM as bytes; `warnings` are sentences for whoever registers it."""

    context: str
    server: str
    ca: bytes = b""
    server_name: str = ""
    insecure: bool = False
    proxy_url: str = field(default="", repr=False)  # with its password
    certificate: bytes = b""
    private_key: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    warnings: tuple[str, ...] = ()

    def spec(self) -> Object:
        """As `Cluster.spec.access`; the API has one kind of credential a cluster, and a certificate goes first."""
        access: Object = {"endpoint": self.server}
        if self.ca:
            access["caBundle"] = base64.b64encode(self.ca).decode()
        if self.server_name:
            access["serverName"] = self.server_name
        if self.insecure:
            access["insecure"] = True
        if self.proxy_url:
            access["proxyURL"] = self.proxy_url
        if self.certificate:
            access["credential"] = {
                "type": "X509Certificate",
                "x509": {
                    "certificate": base64.b64encode(self.certificate).decode(),
                    "privateKey": base64.b64encode(self.private_key).decode(),
                },
            }
        else:
            access["credential"] = {"type": "ServiceAccountToken", "serviceAccountToken": self.token}
        return access


class Kubeconfig:
    """One kubeconfig file. Relative paths in it start at its folder, as in client-go."""

    def __init__(self, path: Path) -> None:
        """Raises Failure when the file is not there or is no kubeconfig."""
        self._path = path.expanduser()
        try:
            with self._path.open("rb") as file:
                content = file.read(_LARGEST + 1)
        except FileNotFoundError:
            raise Failure(f"there is no file {self._path}", _NAME) from None
        except OSError as error:
            raise Failure(f"{self._path} cannot be read ({error.strerror})", _NAME) from error
        if len(content) > _LARGEST:
            raise Failure(f"{self._path} is larger than {_LARGEST >> 20} MiB: that is no kubeconfig", _NAME)
        if not content.strip():
            raise Failure(f"{self._path} is not a kubeconfig: it is empty", _NAME)
        try:
            config = yaml.safe_load(content)
        except RecursionError:
            raise Failure(f"{self._path} is not a kubeconfig: it is nested too deeply", _NAME) from None
        except (yaml.YAMLError, ValueError) as error:
            where = getattr(error, "problem_mark", None)
            line = f", line {where.line + 1}" if where is not None else ""
            raise Failure(f"{self._path} is not YAML{line}", _NAME) from error
        if not isinstance(config, dict) or not isinstance(config.get("contexts"), list):
            raise Failure(f"{self._path} is not a kubeconfig: it has no list of contexts", _NAME)
        self._contexts = _named(config, "contexts", "context")
        self._clusters = _named(config, "clusters", "cluster")
        self._users = _named(config, "users", "user")
        self._current = meta.text(config, "current-context")

    @property
    def contexts(self) -> Sequence[str]:
        """Names, in the order of the file."""
        return tuple(self._contexts)

    def server(self, context: str) -> str:
        """The URL that a context leads to, "" when it leads nowhere; for telling duplicates apart."""
        cluster = meta.text(self._contexts.get(context, {}), "cluster")
        return meta.text(self._clusters.get(cluster, {}), "server").rstrip("/")

    def read(
        self,
        context: str = "",
        *,
        now: datetime,
        login: Login | None = None,
        proxy_url: str | None = None,
        name: str = "NAME",
    ) -> Access:
        """How `context`, by default the current one, reaches its cluster. Raises Failure.

        A user who logs in by a program is refused, unless there is a `login` that runs it. `proxy_url` goes before what
        the kubeconfig says, "" for none. `name` is what the cluster is to be called, for commands to type.
        """
        try:
            return self._read(context or self._current, now, login, proxy_url, shlex.quote(name))
        except Failure as error:
            if error.hint:
                raise
            raise Failure(error.what, _MEND) from error

    def _read(self, context: str, now: datetime, login: Login | None, proxy_url: str | None, name: str) -> Access:
        if not context:
            raise Failure(f"{self._path} has no current context", self._choices())
        if context not in self._contexts:
            raise Failure(f"{self._path} has no context {context!r}", self._choices())
        place = self._contexts[context]
        cluster = self._part(context, "cluster", self._clusters, place)
        user = self._part(context, "user", self._users, place)
        where = f"context {context}"
        server = _server(where, meta.text(cluster, "server").rstrip("/"))
        for part, key, kind in ((cluster, "insecure-skip-tls-verify", bool), (user, "token", str)):
            if not isinstance(part.get(key), kind | None):
                wanted = "true or false, without quotes" if kind is bool else "text: put it in quotes"
                raise Failure(f"{where}: {key} must be {wanted}")
        user = self._logged_in(where, user, cluster, login)
        self._usable(context, user, name)
        certificate = self._bytes(where, user, "client-certificate")
        private_key = self._bytes(where, user, "client-key")
        token = self._token(where, user)
        if not certificate and not token:
            raise Failure(f"{where}: its user has neither a client certificate nor a token", _OTHER)
        warnings = _check_certificate(where, certificate, private_key, now, name) if certificate else ()
        if token and not certificate:
            warnings = _check_token(where, token, now, name)
            if meta.text(user, "tokenFile"):
                warnings += (f"{where}: the token was copied from its file now, and will not follow when that changes",)
        return Access(
            context=context,
            server=server,
            ca=_authority(where, self._bytes(where, cluster, "certificate-authority")),
            server_name=meta.text(cluster, "tls-server-name"),
            insecure=cluster.get("insecure-skip-tls-verify") is True,
            proxy_url=_proxy(where, meta.text(cluster, "proxy-url") if proxy_url is None else proxy_url),
            certificate=certificate,
            private_key=private_key if certificate else b"",
            token="" if certificate else token,
            warnings=tuple(warnings),
        )

    def _choices(self) -> str:
        if not self._contexts:
            return "it has no context at all"
        return f"choose one with --context: {', '.join(self._contexts)}"

    def _part(self, context: str, kind: str, parts: Mapping[str, Object], place: Object) -> Object:
        wanted = meta.text(place, kind)
        if wanted not in parts:
            named = f"names the {kind} {wanted!r}, which is not there" if wanted else f"names no {kind}"
            raise Failure(f"{self._path}: context {context} {named}")
        return parts[wanted]

    def _logged_in(self, where: str, user: Object, cluster: Object, login: Login | None) -> Object:
        """The user as if the kubeconfig had what the program answers; as it is without a program or a `login`."""
        program = meta.section(user, "exec")
        if login is None or not program or user.get("token") or user.get("client-certificate-data"):
            return user
        authority = self._bytes(where, cluster, "certificate-authority")
        data: Object = {"certificate-authority-data": base64.b64encode(authority).decode()} if authority else {}
        issued = login(where, program, self._path.parent, cluster | data)
        found: Object = {key: value for key, value in user.items() if key != "exec"}
        if issued.certificate:
            found["client-certificate-data"] = base64.b64encode(issued.certificate.encode()).decode()
            found["client-key-data"] = base64.b64encode(issued.private_key.encode()).decode()
        return found | ({"token": issued.token} if issued.token else {})

    def _usable(self, context: str, user: Object, name: str) -> None:
        """Refuses the ways of logging in that only work where a person and their programs are."""
        where = f"context {context}"
        if user.get("exec"):
            program = meta.text(meta.section(user, "exec"), "command") or "a program"
            join = _JOIN.format(shlex.quote(context), shlex.quote(str(self._path)), name)
            raise Failure(f"{where} logs in by running {program}, which the gateway does not do", join)
        if user.get("auth-provider"):
            raise Failure(f"{where} logs in by an auth-provider, which Kubernetes itself has removed", _OTHER)
        if user.get("username") or user.get("password"):
            raise Failure(f"{where} logs in by a password, which Kubernetes itself has removed", _OTHER)
        for key in ("as", "as-groups", "as-uid", "as-user-extra"):
            if user.get(key):
                raise Failure(f"{where} acts as somebody else ({key}), which a stored credential cannot", _OTHER)

    def _bytes(self, where: str, part: Object, key: str) -> bytes:
        """`KEY-data` in base64, else the content of the file that `KEY` names; b"" for neither."""
        encoded = meta.text(part, f"{key}-data")
        if encoded:
            try:
                return base64.b64decode("".join(encoded.split()), validate=True)
            except ValueError as error:
                raise Failure(f"{where}: {key}-data is not base64") from error
        named = meta.text(part, key)
        return self._file(where, key, named) if named else b""

    def _file(self, where: str, key: str, named: str) -> bytes:
        path = self._path.parent / named
        try:
            return path.read_bytes()
        except OSError as error:
            raise Failure(f"{where}: {key} names {path}, which cannot be read ({error.strerror})") from error

    def _token(self, where: str, user: Object) -> str:
        named = meta.text(user, "tokenFile")
        if not named:
            return meta.text(user, "token").strip()
        return self._file(where, "tokenFile", named).decode(errors="replace").strip()


def _named(config: Mapping[str, object], plural: str, singular: str) -> dict[str, Object]:
    """The list of named things as a mapping; of two with one name the first counts, as in client-go."""
    found: dict[str, Object] = {}
    entries = config.get(plural)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get(singular), dict):
            found.setdefault(entry["name"], entry[singular])
    return found


def _server(where: str, server: str) -> str:
    """The address of a kubeconfig's cluster entry, when a gateway can reach it by that."""
    if not server:
        raise Failure(f"{where}: its cluster has no server")
    try:
        url = urlsplit(server)
        port = url.port
    except ValueError:
        raise Failure(f"{where}: the server {server!r} is not an address: its host or its port cannot be one") from None
    if url.scheme != "https":
        raise Failure(f"{where}: the server {server!r} is not an https:// address", "a member is reached by TLS only")
    if not url.hostname or port == 0:
        raise Failure(f"{where}: the server {server!r} names no {'port' if url.hostname else 'host'}")
    if "@" in url.netloc or "?" in server or "#" in server:
        told = "has more than a host, a port and a path"  # and that may be a password
        raise Failure(f"{where}: the server at {url.hostname} {told}", "take the rest out of its address")
    return server


def _proxy(where: str, url: str) -> str:
    """The proxy on the way to a member, when the gateway can use one of its kind. Where it is, the gateway judges."""
    try:
        shown, _ = proxies.parted(url)
    except ValueError as error:
        raise Failure(f"{where}: the proxy-url {error}") from None
    wrong = proxies.check(shown, (), destinations.Bounds(loopback=True)) if shown else ()
    if wrong:
        raise Failure(f"{where}: the proxy-url {shown}: {wrong[0]}", "name another one with --proxy-url")
    return url


def _authority(where: str, pem: bytes) -> bytes:
    """Certificates of authorities, or none: then the system's are trusted."""
    if pem:
        try:
            x509.load_pem_x509_certificates(pem)
        except ValueError:
            raise Failure(f"{where}: the certificate-authority is no certificate in PEM") from None
        if b"PRIVATE KEY-----" in pem:
            raise Failure(f"{where}: the certificate-authority holds a private key", "take the certificates alone")
    return pem


def _check_certificate(where: str, certificate: bytes, private_key: bytes, now: datetime, name: str) -> tuple[str, ...]:
    if not private_key:
        raise Failure(f"{where}: there is a client certificate, but no client key")
    try:
        leaf = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise Failure(f"{where}: the client certificate is no certificate in PEM") from error
    try:
        key = serialization.load_pem_private_key(private_key, None)
    except TypeError as error:
        raise Failure(f"{where}: the client key is encrypted", "decrypt it first: openssl pkey -in KEY") from error
    except ValueError as error:
        raise Failure(f"{where}: the client key is no private key in PEM") from error
    shape = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*shape) != leaf.public_key().public_bytes(*shape):
        raise Failure(f"{where}: the client certificate and the client key do not belong together")
    if leaf.not_valid_before_utc > now:
        raise Failure(
            f"{where}: the client certificate is valid only from {durations.clock(leaf.not_valid_before_utc, now)} on",
            "compare the clock of this machine with the cluster's, or wait",
        )
    return _expiry(where, "client certificate", leaf.not_valid_after_utc, now, name)


def _check_token(where: str, token: str, now: datetime, name: str) -> tuple[str, ...]:
    """A token that is no JWT, or has no end, passes: only the member can judge it."""
    if any(c.isspace() or not c.isprintable() or not c.isascii() for c in token):
        raise Failure(f"{where}: the token has characters that no token has")
    try:
        ends = jwt.decode(token, options={"verify_signature": False, "verify_exp": False}).get("exp")
    except jwt.InvalidTokenError:
        return ()
    if not isinstance(ends, int | float) or not 0 < ends < 253_402_300_800:  # until the year 9999, datetime's last
        return ()
    return _expiry(where, "token", datetime.fromtimestamp(ends, UTC), now, name)


def _expiry(where: str, what: str, ends: datetime, now: datetime, name: str) -> tuple[str, ...]:
    told = durations.clock(ends, now)
    if ends <= now:
        raise Failure(f"{where}: the {what} has expired: {told}", "get a new one from whoever runs that cluster")
    if ends - now > _SOON:
        return ()
    command = f"onepass cluster rotate {shlex.quote(name)} --kubeconfig FILE"
    return (f"{where}: the {what} expires {told}; give the gateway a new one before then: {command}",)
