"""Finds out where the keys of an OpenID Connect provider are, and which.

OpenID Connect Discovery 1.0, section 4. Envoy fetches the keys too; what is found here holds while a provider is away.
"""

import asyncio
import hashlib
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import structlog

from onepass.gateway import ir
from onepass.pki import tokens
from onepass.runtime import datadir
from onepass.runtime.settings import Issuer

log = structlog.get_logger(__name__)

_LARGEST = 1024 * 1024  # bytes of a document
_FIRST, _LONGEST = 1.0, 60.0  # seconds before it is asked again after a failure


class DiscoveryError(Exception):
    """What a provider says of itself cannot be used; the text says why."""


def source(issuer: Issuer, document: object, refresh: float) -> ir.KeySource:
    """Where the keys are, by the discovery document. Raises DiscoveryError."""
    if not isinstance(document, dict):
        raise DiscoveryError("its discovery document is not a JSON object")
    if document.get("issuer") != issuer.url:
        raise DiscoveryError(f"it calls itself {document.get('issuer')!r}, not {issuer.url!r}")
    url = document.get("jwks_uri")
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = parts.port or 443
    except ValueError as error:
        raise DiscoveryError("its jwks_uri is not a URL") from error
    if parts.scheme != "https" or not parts.hostname or not str(url).isascii() or not str(url).isprintable():
        raise DiscoveryError("its jwks_uri does not begin with https://")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return ir.KeySource(parts.hostname, port, path, issuer.ca, refresh)


def described(issuer: Issuer, source: ir.KeySource, keys: str) -> ir.Issuer:
    """The issuer as the data plane knows it."""
    groups = issuer.groups
    claims = ir.Claims(
        issuer.username.claim,
        issuer.username.prefix,
        groups.claim if groups else "",
        groups.prefix if groups else "",
        issuer.required,
    )
    return ir.Issuer(issuer.url, issuer.audiences, keys, source, claims)


async def fetch(client: httpx2.AsyncClient, url: str) -> object:
    """A JSON document of at most a megabyte. Raises DiscoveryError."""
    try:
        async with client.stream("GET", url, headers={"accept": "application/json"}) as answer:
            if answer.status_code != 200:
                raise DiscoveryError(f"{url} answered {answer.status_code}")
            content = b""
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > _LARGEST:
                    raise DiscoveryError(f"{url} answered with more than a megabyte")
        return json.loads(content)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, RecursionError) as error:
        raise DiscoveryError(f"{url}: {error or type(error).__name__}") from error


@dataclass(slots=True)
class Discovery:
    """Looks for the keys of each issuer. `found` gets, in the order of the settings, those that are known so far.

    What was found is kept in `folder`, so that a start while a provider is away still knows its keys.
    """

    issuers: Sequence[Issuer]
    refresh: float  # seconds
    folder: Path
    found: Callable[[Sequence[ir.Issuer]], None]
    _known: dict[str, ir.Issuer] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        for issuer in self.issuers:
            if kept := self._kept(issuer):
                self._known[issuer.url] = kept
        self._tell()
        async with asyncio.TaskGroup() as group:
            for issuer in self.issuers:
                group.create_task(self._follow(issuer))

    async def _follow(self, issuer: Issuer) -> None:
        delay, failed = _FIRST, False
        context = ssl.create_default_context(cadata=issuer.ca.decode() if issuer.ca else None)
        async with httpx2.AsyncClient(verify=context, timeout=10, trust_env=False) as client:
            while True:
                try:
                    told = await fetch(client, issuer.document)
                    where = source(issuer, told, self.refresh)
                    await self._take(issuer, where, await fetch(client, str(httpx2.URL(_jwks_uri(told)))))
                except DiscoveryError as error:
                    if not failed:
                        log.warning("an issuer of tokens is away, will try again", issuer=issuer.url, error=str(error))
                    failed = True
                    await asyncio.sleep(delay)
                    delay = min(_LONGEST, delay * 2)
                    continue
                if failed:
                    log.info("the issuer of tokens is there", issuer=issuer.url)
                delay, failed = _FIRST, False
                await asyncio.sleep(self.refresh)

    async def _take(self, issuer: Issuer, where: ir.KeySource, document: object) -> None:
        try:
            keys = tokens.public_keys(document)
        except ValueError as error:
            raise DiscoveryError(f"{issuer.url}: {error}") from error
        found = described(issuer, where, keys)
        if self._known.get(issuer.url) == found:
            return
        self._known[issuer.url] = found
        self._tell()
        kept = {"issuer": issuer.url, "source": [where.host, where.port, where.path], "keys": keys}
        await asyncio.to_thread(datadir.write_private, self._file(issuer), json.dumps(kept).encode())

    def _tell(self) -> None:
        if self._known:
            self.found([self._known[each.url] for each in self.issuers if each.url in self._known])

    def _file(self, issuer: Issuer) -> Path:
        return self.folder / f"{hashlib.sha256(issuer.document.encode()).hexdigest()[:32]}.json"

    def _kept(self, issuer: Issuer) -> ir.Issuer | None:
        try:
            kept = json.loads(self._file(issuer).read_bytes())
            host, port, path = kept["source"]
            keys = tokens.public_keys(json.loads(kept["keys"]))
            where = ir.KeySource(str(host), int(port), str(path), issuer.ca, self.refresh)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return described(issuer, where, keys) if kept["issuer"] == issuer.url else None


def _jwks_uri(document: object) -> str:
    return str(document["jwks_uri"]) if isinstance(document, dict) else ""
