"""The cluster whose API the gateway extends: what it says of its front proxy, and whom its aggregator may trust.

https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/ tells of the config map, which every
kube-apiserver with an aggregator keeps up to date.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import httpx2
import orjson
import structlog
import yaml
from lightkube.config import client_adapter, kubeconfig
from lightkube.core.exceptions import ConfigError

from onepass.api import meta
from onepass.api.meta import Object
from onepass.gateway import ir
from onepass.pki import certificates
from onepass.runtime import datadir
from onepass.runtime.settings import Extension, SettingsError

log = structlog.get_logger(__name__)

CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.cluster.karpor.io"
INJECT = "access.karpor.io/inject-ca"  # an annotation of the APIService: "true" has its caBundle kept up to date
LOOK_SECONDS = 10.0
FILE_SECONDS = 2.0  # between two looks at the operator's own file
_AGAIN_SECONDS = 2.0  # while the host has not said who its front proxy is
_DEADLINE = 10.0


class HostError(Exception):
    """The host cluster cannot be asked, or does not say what is needed; the text says why."""


def of_files(settings: Extension, now: float) -> ir.Front:
    """The front proxy as the operator's own file and flags tell of it. Raises SettingsError."""
    path = settings.client_ca_file
    assert path is not None
    try:
        ca = certificates.to_pem(certificates.bundle(datadir.read(path), now))
    except certificates.CertificateRefused as error:
        raise SettingsError(f"--requestheader-client-ca-file {path} {error}") from error
    return _front(
        settings,
        ca,
        allowed=settings.allowed_names,
        users=settings.username_headers,
        groups=settings.group_headers,
        uids=settings.uid_headers,
        extras=settings.extra_headers_prefix,
    )


def of_config_map(settings: Extension, data: Mapping[str, object], now: float) -> ir.Front:
    """The front proxy as the host itself tells of it. Raises HostError."""
    pem = data.get("requestheader-client-ca-file")
    if not isinstance(pem, str) or not pem:
        raise HostError("it has no requestheader-client-ca-file: the host's kube-apiserver runs without an aggregator")
    try:
        ca = certificates.to_pem(certificates.bundle(pem.encode(), now))
    except certificates.CertificateRefused as error:
        raise HostError(f"its requestheader-client-ca-file {error}") from error
    users = _names(data, "requestheader-username-headers")
    if not users:
        raise HostError("its requestheader-username-headers name no header")
    return _front(
        settings,
        ca,
        allowed=_names(data, "requestheader-allowed-names"),
        users=users,
        groups=_names(data, "requestheader-group-headers"),
        uids=_names(data, "requestheader-uid-headers"),
        extras=_names(data, "requestheader-extra-headers-prefix"),
    )


def _names(data: Mapping[str, object], key: str) -> tuple[str, ...]:
    try:
        found = orjson.loads(str(data.get(key) or "[]"))
    except orjson.JSONDecodeError as error:
        raise HostError(f"its {key} is not JSON") from error
    if not isinstance(found, list) or not all(isinstance(name, str) and name for name in found):
        raise HostError(f"its {key} is not a list of names")
    return tuple(found)


def _front(settings: Extension, ca: bytes, *, allowed: tuple[str, ...], **headers: tuple[str, ...]) -> ir.Front:
    lowered = {field: tuple(name.lower() for name in names) for field, names in headers.items()}
    passes = "narrow" if settings.passes == "narrow" else "ignore"
    return ir.Front(settings.listen.host, settings.listen.port, ca, allowed, passes=passes, **lowered)  # type: ignore[arg-type]


@dataclass(slots=True)
class HostCluster:
    """Asks the host from time to time. `found` is called with each new answer; `authority` gives the PEM by which the
    host's aggregator knows this gateway."""

    settings: Extension
    found: Callable[[ir.Front], None]
    authority: Callable[[], bytes]
    known: ir.Front | None = None
    _withdrawn: frozenset[str] = frozenset()
    _failed: str = ""
    _untold: str = ""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            if not self.settings.asks_host:
                self._take(of_files(self.settings, time.time()))
                group.create_task(self._follow_file())
            if self.settings.asks_host or self.settings.kubeconfig:
                group.create_task(self._follow_host())

    async def _follow_file(self) -> None:
        while True:
            await asyncio.sleep(FILE_SECONDS)
            self.look_at_file()

    async def _follow_host(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS if self.known else _AGAIN_SECONDS)

    def look_at_file(self) -> None:
        """Once. What cannot be used is told, and what was known stays known, as in kube-apiserver."""
        try:
            self._take(of_files(self.settings, time.time()))
        except SettingsError as error:
            if str(error) != self._failed:
                log.warning("the changed authorities of the front proxy are of no use", error=str(error))
            self._failed = str(error)
        else:
            self._failed = ""

    async def look(self) -> None:
        """Once. What cannot be read is told, and what was known stays known."""
        try:
            async with await asyncio.to_thread(self._client) as client:
                if self.settings.asks_host:
                    data = meta.section(await _answer(await client.get(CONFIG_MAP)), "data")
                    self._take(of_config_map(self.settings, data, time.time()))
                self._failed = ""
                await self._inject(client)
        except (HostError, httpx2.HTTPError, OSError) as error:
            why = str(error) or type(error).__name__
            if why != self._failed:
                log.warning("the host cluster does not say who its front proxy is", config_map=CONFIG_MAP, error=why)
            self._failed = why

    def _take(self, front: ir.Front) -> None:
        """What was trusted and is no longer is remembered: a handshake of before must not let anybody in after."""
        now = _digests(front)
        before = _digests(self.known) if self.known else frozenset()
        self._withdrawn = (self._withdrawn | before) - now
        front = replace(front, withdrawn=tuple(sorted(self._withdrawn)))
        if front != self.known:
            log.info("the front proxy of the host cluster is known", allowed=list(front.allowed), passes=front.passes)
            self.known = front
            self.found(front)

    async def _inject(self, client: httpx2.AsyncClient) -> None:
        """Keep the authority of the gateway in the APIService, where that asks for it."""
        try:
            service = await _answer(await client.get(API_SERVICE))
            metadata, bundle = meta.section(service, "metadata"), base64.b64encode(self.authority()).decode()
            asked = meta.section(metadata, "annotations").get(INJECT) == "true"
            if not asked or meta.section(service, "spec").get("caBundle") == bundle:
                return
            patch = {
                "metadata": {"resourceVersion": metadata.get("resourceVersion")},
                "spec": {"caBundle": bundle},
            }
            headers = {"content-type": "application/merge-patch+json"}
            await _answer(await client.patch(API_SERVICE, content=orjson.dumps(patch), headers=headers))
            log.info("the APIService has the authority of this gateway")
            self._untold = ""
        except HostError as error:
            if self._untold != str(error):
                log.info("the APIService is left as it is", error=str(error))
            self._untold = str(error)

    def _client(self) -> httpx2.AsyncClient:
        """Made anew each time: the token and the certificates of a pod change."""
        return client(self.settings)


def client(settings: Extension) -> httpx2.AsyncClient:
    """For the API of the host. Raises HostError for a kubeconfig, or a pod, that does not lead there."""
    path = settings.kubeconfig
    try:
        config = kubeconfig.KubeConfig.from_file(path) if path else kubeconfig.KubeConfig.from_service_account()
        chosen = config.get()
        assert chosen is not None  # it raises, unless it is given a default
        parameters = client_adapter.ConnectionParams(timeout=httpx2.Timeout(_DEADLINE), trust_env=False)
        return client_adapter.AsyncClient(chosen, parameters)
    # lightkube lets whatever a malformed file provokes through.
    except (ConfigError, KeyError, TypeError, AttributeError, ValueError, OSError, yaml.YAMLError) as error:
        told = f": {error}" if isinstance(error, ConfigError | OSError) else ""
        if path:
            raise HostError(f"{path} is not a usable kubeconfig of the host{told}") from error
        raise HostError(
            f"there is no service account of a pod here{told}; outside of a cluster give --authentication-kubeconfig, "
            "or --requestheader-client-ca-file"
        ) from error


def _digests(front: ir.Front) -> frozenset[str]:
    return frozenset(certificates.digest(each) for each in certificates.chain(front.ca))


async def _answer(response: httpx2.Response) -> Object:
    try:
        found = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        found = None
    if response.status_code != 200 or not isinstance(found, dict):
        told = meta.text(found, "message") if isinstance(found, dict) else ""
        raise HostError(told or f"{response.request.url.path} answered {response.status_code}")
    return found
