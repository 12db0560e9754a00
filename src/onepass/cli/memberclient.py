"""A member cluster asked directly, with the credential of the person who runs the command."""

import base64
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import orjson
from lightkube.config import client_adapter, kubeconfig, models
from lightkube.core.exceptions import ConfigError

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import client, transport
from onepass.cli.failure import Failure, Refused, Unreachable
from onepass.cli.memberconfig import Access
from onepass.controllers import connecting
from onepass.registry import proxies

_TRIES = 5  # at an object that others change meanwhile
_GOING_SECONDS = 90.0  # a namespace, with what is in it
_LOOK_SECONDS = 0.25
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Member:
    """One member. A context manager; every call has a deadline and raises Failure, which names the context."""

    def __init__(self, access: Access, *, timeout: float = 15.0) -> None:
        self.context = access.context
        self.url = access.server
        self._proxy, _ = proxies.parted(access.proxy_url)
        self._extensions = {"sni_hostname": access.server_name} if access.server_name else {}
        trust = httpx2.URL(self.url).host not in _LOOPBACK
        parameters = client_adapter.ConnectionParams(
            timeout=httpx2.Timeout(timeout), trust_env=trust, proxy=access.proxy_url or None
        )
        try:
            self._http = client_adapter.Client(_config(access), parameters)
        except (ConfigError, OSError, ValueError, TypeError) as error:
            raise Failure(
                f"context {self.context}: its certificates cannot be used ({transport.unusable(error)})"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str) -> Object | None:
        """None when it is not there."""
        return self._ask("GET", path, absent=True)

    def create(self, path: str, obj: Object) -> Object:
        return self._ask("POST", path, obj) or {}

    def list(self, path: str) -> list[Object]:
        """The objects of a collection, which must be a small one."""
        items = (self.get(path) or {}).get("items")
        return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []

    def merge(self, path: str, change: Object) -> Object:
        """A JSON merge patch."""
        return self._ask("PATCH", path, change, media="application/merge-patch+json") or {}

    def delete(self, path: str, seen: Object) -> bool:
        """Whether it was there. What is no more as it was `seen` stays, and Refused is raised."""
        return self._ask("DELETE", path, client.as_seen(seen), absent=True) is not None

    def take(self, path: str, ours: Callable[[Object], bool]) -> Object | None:
        """Delete what is there, when it is `ours`: what it was, None when there was nothing of that kind."""
        for left in reversed(range(_TRIES)):
            found = self.get(path)
            if found is None or going(found) or not ours(found):
                return None
            try:
                return found if self.delete(path, found) else None
            except Refused as refused:  # it has changed since
                if refused.code != 409 or not left:
                    raise
        raise AssertionError("the last try returns or raises")

    def gone(self, path: str, uid: str) -> None:
        """Returns once the object is no more. Raises Failure when that takes too long."""
        deadline = time.monotonic() + _GOING_SECONDS
        while (found := self.get(path)) is not None and meta.uid(found) == uid:
            if time.monotonic() > deadline:
                raise Failure(
                    f"context {self.context}: the member has not finished taking away {path}",
                    "see what holds it (kubectl get namespace -o yaml, status.conditions), and try again then",
                )
            time.sleep(_LOOK_SECONDS)

    def _ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        media: str = "application/json",
        absent: bool = False,
    ) -> Object | None:
        headers = {"accept": "application/json"} | ({"content-type": media} if body else {})
        content = orjson.dumps(body) if body else None
        try:
            answer = self._http.request(
                method, self.url + path, content=content, headers=headers, extensions=self._extensions
            )
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        except ConfigError as error:
            raise Failure(f"context {self.context}: {error}") from error
        if answer.status_code == 404 and absent:
            return None
        try:
            found = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            found = None
        if answer.is_error:
            raise self._refused(answer.status_code, found if isinstance(found, dict) else {}, method, path)
        if not isinstance(found, dict):
            raise Failure(f"{self.url}{path} did not answer with an object", "is that a Kubernetes API server?")
        return found

    def _unreachable(self, error: httpx2.TransportError) -> Failure:
        detail = transport.failing(error)
        if untrusted := connecting.distrusted(error):
            return Unreachable(
                f"context {self.context}: the certificate of {self.url} is not trusted: {untrusted}",
                "the kubeconfig's certificate-authority-data must be of the authority that signed it, and its server "
                "(or tls-server-name) a name that it is for",
            )
        if isinstance(error, httpx2.ProxyError):
            told = f"its proxy does not lead to {self.url} ({detail})"
            return Unreachable(f"context {self.context}: {told}", "check the kubeconfig's proxy-url, or --proxy-url")
        if self._proxy:
            told = f"{self.url} cannot be reached through the proxy {self._proxy} ({detail})"
            hint = "check the kubeconfig's proxy-url, or --proxy-url, and that the proxy runs"
            return Unreachable(f"context {self.context}: {told}", hint)
        return Unreachable(
            f"context {self.context}: {self.url} cannot be reached ({detail})",
            "check the server in the kubeconfig, the network and firewalls",
        )

    def _refused(self, code: int, status: Object, method: str, path: str) -> Refused:
        where = f"context {self.context}"
        said = meta.text(status, "message")
        if code == 401:
            told = f"{where}: {self.url} does not know its user, whose credential has ended or was taken back"
            return Refused(told, "log in to that cluster again, until kubectl works with this context", code=code)
        if code == 403:
            told = f"{where}: its user may not do this on the member: {said or f'{method} {path}'}"
            return Refused(told, "use the context of an administrator of the member", code=code)
        return Refused(f"{where}: {self.url}{path} answered {code} {said}".strip(), code=code)


def going(obj: Object) -> bool:
    """Whether it is being taken away already."""
    return bool(meta.text(meta.section(obj, "metadata"), "deletionTimestamp"))


def _config(access: Access) -> kubeconfig.SingleConfig:
    def data(pem: bytes) -> str | None:
        return base64.b64encode(pem).decode() if pem else None

    user = models.User(
        token=access.token or None, client_cert_data=data(access.certificate), client_key_data=data(access.private_key)
    )
    cluster = models.Cluster(server=access.server, certificate_auth_data=data(access.ca), insecure=access.insecure)
    context = models.Context(cluster="it", user="it")
    return kubeconfig.SingleConfig(
        context_name=access.context, context=context, cluster=cluster, user=user, fname=Path(access.context)
    )
