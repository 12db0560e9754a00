"""From a request line to the attributes that rules speak of, as kube-apiserver reads it.

The rules are those of k8s.io/apiserver/pkg/endpoints/request/requestinfo.go (verbs, namespaces, the old `/watch/` and
`/proxy/` prefixes, names by field selector) and of Go's net/url (percent-decoding, query strings). One rule of our own
stands on top: what two servers could read in two ways is refused, so that what was decided is what happens.
gateway/gatekeeper.lua says the same in Lua; tests/unit/test_differential.py holds the two together.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from onepass.access.attributes import Attributes

MAX_PARAMETERS = 1000  # Go drops a query of more than 10,000 parameters as a whole; nobody sends a thousand

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PATH_VERBS = frozenset({"proxy", "watch"})
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_SESSIONS = frozenset({"exec", "attach", "portforward"})  # a GET by WebSocket, a POST by SPDY; never a read
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NOT_IN_A_TARGET = re.compile(r"[^\x21-\x7e]")
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f;\\]")
_TERM = re.compile(r"(.*?)(!=|==|=)(.*)", re.DOTALL)


class Malformed(ValueError):
    """The request line cannot be read, or not in one way only; its text is for the client (400)."""


@dataclass(frozen=True, slots=True)
class Member:
    """A request to a member cluster: the cluster's name and the path there, which begins with a slash."""

    cluster: str
    path: str


def decode(path: str) -> str:
    """The path percent-decoded once, as Go's `URL.Path`.

    `path` is what stands before the `?` in the request line, still encoded. Raises Malformed for a path that is not
    absolute, is not UTF-8, has empty, `.` or `..` segments, or hides a separator (`%2F`, `;`, a backslash, a control
    character): a real kube-apiserver answers `namespaces/default%2Fsecrets` with the list of Secrets.
    """
    if not path.startswith("/"):
        raise Malformed("the path of a request begins with a slash")
    if _NOT_IN_A_TARGET.search(path) or "#" in path or "?" in path:
        raise Malformed("the path has a character that must be percent-encoded")
    if _BAD_ESCAPE.search(path):
        raise Malformed("the path has a percent sign that begins no percent-encoded byte")
    if "%2F" in path or "%2f" in path:
        raise Malformed("the path has a percent-encoded slash")
    try:
        decoded = unquote_to_bytes(path).decode() if "%" in path else path
    except UnicodeDecodeError as error:
        raise Malformed("the path is not UTF-8") from error
    if _AMBIGUOUS.search(decoded):
        raise Malformed("the path has a semicolon, a backslash or a control character")
    *inner, last = decoded[1:].split("/")
    if "" in inner or "." in (*inner, last) or ".." in (*inner, last):
        raise Malformed('the path has an empty segment or one that is "." or ".."')
    return decoded


def member(path: str) -> Member | None:
    """The member that a decoded path leads to, or None when it is for the gateway's own API.

    Both forms serve: `/apis/cluster.karpor.io/v1beta1/clusters/NAME/proxy/...` and its alias
    `/apis/kusionstack.io/Cluster/NAME/proxy/...`.
    """
    for prefix in ("/apis/cluster.karpor.io/v1beta1/clusters/", "/apis/kusionstack.io/Cluster/"):
        if path.startswith(prefix):
            name, _, rest = path[len(prefix) :].partition("/")
            word, _, inner = rest.partition("/")
            return Member(name, f"/{inner}") if name and word == "proxy" else None
    return None


def parse(method: str, path: str, query: str, upgrade: bool) -> Attributes:
    """What a request asks for. `path` and `query` as they stand in the request line; `upgrade` when it asks for one.

    An upgrade is always `create`, whatever its method, and so is a request for exec, attach or port-forward: its method
    says nothing about what the session may do. Raises Malformed (400).
    """
    return attributes(method, decode(path), query, upgrade)


def verb_of(method: str, upgrade: bool) -> str:
    """The verb on `clusters/proxy` that carries a request of this method; "" for a method that has none."""
    return "create" if upgrade else _VERBS.get(method, "")


def attributes(method: str, path: str, query: str, upgrade: bool) -> Attributes:
    """As `parse`, for a path that `decode` has passed, or the inner path of a `member`."""
    parts = [part for part in path.split("/") if part]
    beyond = {"api": 1, "apis": 2}.get(parts[0] if parts else "", 0)  # where the version stands
    if not beyond or len(parts) < beyond + 2:
        return Attributes("create" if upgrade else method.lower(), path, is_resource=False)
    group = parts[1] if beyond == 2 else ""
    version, parts = parts[beyond], parts[beyond + 1 :]
    verb = _VERBS.get(method, "")
    if parts[0] in _PATH_VERBS:
        if len(parts) < 2:
            raise Malformed("the path names no resource")
        verb, parts = parts[0], parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    subresource = parts[2] if len(parts) > 2 and verb != "proxy" else ""
    name = parts[1] if len(parts) > 1 else ""
    if upgrade or subresource in _SESSIONS:
        verb = "create"
    elif verb == "get" and not name:
        verb, name = _listing(query)
    elif verb == "delete" and not name:
        verb = "deletecollection"
    return Attributes(verb, path, True, group, version, parts[0], subresource, namespace, name)


def _listing(query: str) -> tuple[str, str]:
    """`list` or `watch`, and the one name that the field selector admits, if it does.

    A server that cannot decode the other list options reads no name here either; it then answers 400, so they are left
    to it.
    """
    values = dict(reversed(_pairs(query)))  # the first of several counts
    watch = values.get(b"watch", b"0").replace(b"\xc5\xbf", b"s").lower()  # Go folds U+017F to s as well
    try:
        name = _selected_name(values.get(b"fieldSelector", b"").decode())
    except UnicodeDecodeError as error:
        raise Malformed("the field selector is not UTF-8") from error
    return "list" if watch in (b"0", b"false") else "watch", name


def _pairs(query: str) -> list[tuple[bytes, bytes]]:
    """The parameters of a query in order. Go drops what it cannot read, other servers keep it: so it is refused."""
    if _NOT_IN_A_TARGET.search(query) or _BAD_ESCAPE.search(query) or ";" in query or "#" in query:
        raise Malformed("the query has a semicolon or a character that must be percent-encoded")
    parameters = query.split("&")
    if len(parameters) > MAX_PARAMETERS:
        raise Malformed(f"the query has more than {MAX_PARAMETERS} parameters")
    split = (parameter.replace("+", " ").partition("=") for parameter in parameters if parameter)
    return [(unquote_to_bytes(key), unquote_to_bytes(value)) for key, _, value in split]


def _selected_name(selector: str) -> str:
    """The name that `metadata.name=NAME` in a field selector requires, or "" (k8s.io/apimachinery/pkg/fields)."""
    names: list[str] = []
    for term in sorted(_terms(selector)):
        match = _TERM.fullmatch(term)
        value = _unescape(match[3]) if match else None
        if match is None or value is None:
            return ""  # the server will not understand it either
        if match[1] == "metadata.name" and match[2] != "!=":
            names.append(value)
    name = names[0] if names else ""
    return "" if name in (".", "..") or "/" in name or "%" in name else name


def _terms(selector: str) -> list[str]:
    """The comma-separated terms; a backslash keeps the next character from ending one."""
    return re.findall(r"(?:[^,\\]|\\.|\\\Z)+", selector, re.DOTALL)


def _unescape(value: str) -> str | None:
    if re.fullmatch(r"(?:[^\\,=]|\\[\\,=])*", value, re.DOTALL) is None:
        return None
    return re.sub(r"\\(.)", r"\1", value)
