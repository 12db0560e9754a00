"""The API client of the commands: a kubeconfig found, a gateway asked. Nothing here that kubectl could not do."""

import base64
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx2
import orjson
import yaml
from lightkube.config import client_adapter, kubeconfig, models
from lightkube.core.exceptions import ConfigError

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import transport
from onepass.cli.failure import Failure, Refused, Unreachable
from onepass.controllers import connecting

CLUSTERS = "/apis/cluster.karpor.io/v1beta1/clusters"
PASSES = "/apis/access.karpor.io/v1beta1/passes"
STREAMS = "/apis/access.karpor.io/v1beta1/streams"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

_CONTEXT = "onepass"  # the gateway's own context in every kubeconfig that OnePass writes
_PAGE = 500
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')  # RFC 7234, 5.5, as Kubernetes uses it
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def locate(given: Path | None, data_dir: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The kubeconfig to use: the first of `given`, DATA_DIR's, $ONEPASS_KUBECONFIG, $ONEPASS_DATA_DIR's, ./.onepass',
    and kubectl's own if it has a context `onepass`.

    Raises Failure when that file is not there.
    """
    named_none = given is None and data_dir is None and not environment.get("ONEPASS_DATA_DIR")
    if given is None and data_dir is None:
        named = environment.get("ONEPASS_KUBECONFIG", "")
        given = Path(named) if named else None
        data_dir = Path(environment.get("ONEPASS_DATA_DIR", "") or ".onepass")
    path = given.expanduser() if given is not None else (data_dir or Path()).expanduser() / "admin.kubeconfig"
    if path.is_file():
        return path
    if named_none and given is None and (kubectls := _kubectls(environment)):
        return kubectls
    if given is not None:
        raise Failure(f"there is no kubeconfig at {path}", "name another with --kubeconfig or ONEPASS_KUBECONFIG")
    raise Failure(
        f"there is no gateway's kubeconfig at {path}",
        "start a gateway with `onepass up`, or say where one is: --data-dir DIR, --kubeconfig FILE,\n"
        "or the environment variables ONEPASS_DATA_DIR, ONEPASS_KUBECONFIG and KUBECONFIG",
    )


def _kubectls(environment: Mapping[str, str]) -> Path | None:
    """The kubeconfig that kubectl uses, when a gateway is in it: `onepass login` writes there."""
    home = environment.get("HOME", "")
    listed = environment.get("KUBECONFIG") or (f"{home}/.kube/config" if home else "")
    for path in (Path(each) for each in listed.split(os.pathsep) if each):
        with suppress(ConfigError, KeyError, TypeError, AttributeError, ValueError, OSError, yaml.YAMLError):
            if _CONTEXT in kubeconfig.KubeConfig.from_file(path).contexts:
                return path
    return None


def _load(path: Path) -> kubeconfig.SingleConfig:
    try:
        config = kubeconfig.KubeConfig.from_file(path)
        found = config.get(_CONTEXT if _CONTEXT in config.contexts else None)
    except ConfigError as error:
        raise Failure(f"{path}: {error}") from error
    # lightkube lets whatever a malformed file provokes through.
    except (KeyError, TypeError, AttributeError, ValueError, OSError, yaml.YAMLError) as error:
        why = f": {error.strerror}" if isinstance(error, OSError) else ""
        raise Failure(f"{path} is not a usable kubeconfig{why}", "name another kubeconfig with --kubeconfig") from error
    if found is None or found.user is None:
        raise Failure(f"{path}: the context has no user", "name another kubeconfig with --kubeconfig")
    return found


def segment(name: str) -> str:
    """A name as one segment of a path. Raises Failure for what can never be the name of an object."""
    if name in ("", ".", "..") or any(c in "/%?#" or not c.isprintable() for c in name):
        raise Failure(f"{name!r} cannot be the name of anything")
    return quote(name)


def as_seen(obj: Object) -> Object:
    """The options of a deletion by which it is of this object, unchanged, or refused with 409."""
    metadata = meta.section(obj, "metadata")
    return {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": meta.uid(obj), "resourceVersion": meta.text(metadata, "resourceVersion")},
    }


# What TLS says of a client certificate that no longer counts (RFC 8446, 6.2), and what that means.
_CERTIFICATE_ALERTS = {"CERTIFICATE_REVOKED": "has been taken back", "CERTIFICATE_EXPIRED": "has expired"}


class Gateway:
    """One gateway, asked as one user. A context manager; every call has a deadline and raises Failure."""

    def __init__(
        self,
        path: Path,
        *,
        timeout: float = 15.0,
        warn: Callable[[str], None] | None = None,
        config: kubeconfig.SingleConfig | None = None,
    ) -> None:
        """`warn` gets the text of each `Warning` that the API sends with an answer. With a `config`, `path` is only
        what messages call it."""
        config = config or _load(path)
        self.path = path
        self._warn = warn
        # A context for a member leads to the gateway as well: what comes before the member's path.
        self.url = config.cluster.server.split("/apis/", 1)[0].rstrip("/")
        trust = httpx2.URL(self.url).host not in _LOOPBACK  # a proxy of the environment is never for loopback
        parameters = client_adapter.ConnectionParams(timeout=httpx2.Timeout(timeout), trust_env=trust)
        config = config._replace(cluster=_moved(config.cluster, self.url))
        try:
            self.ca = _authority(config)
            self._http = client_adapter.Client(config, parameters)
        except (ConfigError, OSError, ValueError, TypeError) as error:
            raise Failure(f"{path}: its certificates cannot be used ({transport.unusable(error)})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str) -> Object:
        return self._ask("GET", path)

    def raw(self, path: str) -> tuple[int, str]:
        """Status and text of a path that does not answer with an object, such as /readyz."""
        with self._told():
            answer = self._http.get(path)
        return answer.status_code, answer.text

    def list(self, path: str, selector: str = "", fields: str = "") -> list[Object]:
        """Every object of a collection, page by page; `fields` is a field selector."""
        found: list[Object] = []
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        query |= {"fieldSelector": fields} if fields else {}
        while True:
            page = self._ask("GET", path, query)
            items = page.get("items")
            found += [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
            query["continue"] = meta.text(meta.section(page, "metadata"), "continue")
            if not query["continue"]:
                return found

    def create(self, path: str, obj: Object) -> Object:
        return self._ask("POST", path, body=obj)

    def replace(self, path: str, obj: Object) -> Object:
        return self._ask("PUT", path, body=obj)

    def merge(self, path: str, change: Object) -> Object:
        """A JSON merge patch."""
        return self._ask("PATCH", path, body=change, media="application/merge-patch+json")

    def delete(self, path: str, seen: Object | None = None) -> Object:
        """What is no more as it was `seen` stays, and Refused is raised."""
        return self._ask("DELETE", path, body=None if seen is None else as_seen(seen))

    def wait(self, path: str, name: str, done: Callable[[Object], bool], seconds: float) -> Object | None:
        """The object once `done` says so, by watching it; None when that did not come within `seconds`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for kind, obj in self.events(path, f"metadata.name={name}", left):
                if kind == "DELETED":
                    raise Failure(f"{name} was deleted while it was waited for")
                if kind in ("ADDED", "MODIFIED") and done(obj):
                    return obj
                if time.monotonic() > deadline:
                    return None
            time.sleep(min(0.2, left))  # a server that ends each watch at once is not asked without pause
        return None

    def events(self, path: str, fields: str = "", seconds: float = 86400) -> Iterator[tuple[str, Object]]:
        """Type and object of what is there and of each change, by one watch: until the server ends it."""
        query = {"watch": "1", "timeoutSeconds": str(max(1, int(seconds)))}
        query |= {"fieldSelector": fields} if fields else {}
        timeout = httpx2.Timeout(15.0, read=seconds)
        try:
            with self._told(), self._http.stream("GET", path, params=query, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._refusal(answer)
                for line in answer.iter_lines():
                    event = _object(line.encode())
                    yield meta.text(event, "type"), meta.section(event, "object")
        except Unreachable as error:
            if not isinstance(error.__cause__, httpx2.ReadTimeout | httpx2.RemoteProtocolError):
                raise

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        media: str = "application/json",
    ) -> Object:
        content = None if body is None else orjson.dumps(body)
        headers = {"Accept": "application/json"} | ({"Content-Type": media} if body is not None else {})
        with self._told():
            answer = self._http.request(method, path, params=query, content=content, headers=headers)
        if answer.is_error:
            raise self._refusal(answer)
        for header in answer.headers.get_list("warning"):
            for text in _WARNING.findall(header):
                if self._warn is not None:
                    self._warn(re.sub(r"\\(.)", r"\1", text))
        found = _object(answer.content)
        if not found:
            raise Failure(f"{self.url}{path} did not answer with an object", "is that a OnePass gateway?")
        return found

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Translates what the transport raises."""
        try:
            yield
        except httpx2.ConnectTimeout as error:
            raise Unreachable(f"the gateway at {self.url} does not answer in time", "is it running?") from error
        except httpx2.ConnectError as error:
            if wrong := connecting.distrusted(error):
                raise Unreachable(
                    f"what listens at {self.url} is not the gateway of {self.path} ({wrong})",
                    "its certificate is not signed by that kubeconfig's authority: use the kubeconfig of this gateway",
                ) from error
            raise Unreachable(
                f"no gateway answers at {self.url} ({transport.failing(error)})",
                "start it with `onepass up`, or name another with --kubeconfig or --data-dir",
            ) from error
        except httpx2.TransportError as error:
            for alert, fate in _CERTIFICATE_ALERTS.items():
                if alert in str(error):
                    told = f"the certificate in {self.path} {fate}: {self.url} refuses it"
                    raise Failure(told, "ask for a new pass") from error
            told = f"the gateway at {self.url} broke off ({transport.failing(error)})"
            raise Unreachable(told, "see what it logs") from error
        except ConfigError as error:
            raise Failure(f"{self.path}: {error}") from error

    def _refusal(self, answer: httpx2.Response) -> Refused:
        status = _object(answer.content)
        message = meta.text(status, "message") or f"{answer.request.url.path} answered {answer.status_code}"
        hint = ""
        if answer.status_code == 401:
            hint = f"the credential in {self.path} is expired or was taken back: ask for a new pass"
        elif answer.status_code == 403:
            hint = f"the user of {self.path} may not do this; an administrator's kubeconfig is named with --kubeconfig"
        elif answer.status_code == 404 and not meta.section(status, "details").get("name"):  # no such kind at all
            hint = f"is {self.url} a OnePass gateway? If not, name the kubeconfig of one with --kubeconfig"
        return Refused(message, hint, code=answer.status_code)


def by_token(url: str, ca: bytes, token: str) -> Gateway:
    """The gateway at a URL, asked with a bearer token; `ca` b"" leaves its certificate to the system."""
    return _direct(url, ca, models.User(token=token))


def by_certificate(url: str, ca: bytes, certificate: str, private_key: str) -> Gateway:
    """The gateway at a URL, asked with a client certificate and its key in PEM."""
    pair = (base64.b64encode(each.encode()).decode() for each in (certificate, private_key))
    user = models.User(client_cert_data=next(pair), client_key_data=next(pair))
    return _direct(url, ca, user)


def _direct(url: str, ca: bytes, user: models.User) -> Gateway:
    cluster = models.Cluster(server=url, certificate_auth_data=base64.b64encode(ca).decode() if ca else None)
    context = models.Context(cluster="it", user="it")
    config = kubeconfig.SingleConfig(context_name="it", context=context, cluster=cluster, user=user)
    return Gateway(Path("this sign-in"), config=config)


def _object(content: bytes) -> Object:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _moved(cluster: models.Cluster, url: str) -> models.Cluster:
    return models.Cluster(
        server=url,
        certificate_auth=cluster.certificate_auth,
        certificate_auth_data=cluster.certificate_auth_data,
        insecure=cluster.insecure,
    )


def _authority(config: kubeconfig.SingleConfig) -> bytes:
    """The PEM by which the gateway's own certificate is checked; b"" when the kubeconfig leaves that to the system."""
    if config.cluster.certificate_auth:
        return Path(config.abs_file(config.cluster.certificate_auth)).read_bytes()
    return base64.b64decode(config.cluster.certificate_auth_data or "")
