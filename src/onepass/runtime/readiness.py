"""Finds out whether a request through the gateway succeeds, by sending one."""

import asyncio
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2

from onepass.runtime.kubeconfig import PROXY, Entry

_PAUSE = 0.02  # seconds between two tries
LONGEST = 60.0  # seconds


class NotReadyError(Exception):
    """The gateway did not become ready; the text says what the last answer was."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """A client of the gateway, with the administrator's certificate."""

    entry: Entry

    async def reached(self, members: Sequence[str]) -> None:
        """Returns once the API server and each of `members` answer through the gateway. Raises NotReadyError."""
        paths = ["/readyz", *(PROXY.format(name) + "/readyz" for name in members)]
        last = "nothing was heard of it"
        try:
            async with asyncio.timeout(LONGEST), self._client() as client:
                for path in paths:
                    while (last := await _ask(client, path)) != "200":  # noqa: ASYNC110  another process gets ready
                        await asyncio.sleep(_PAUSE)
        except TimeoutError:
            raise NotReadyError(f"the gateway is not ready after {LONGEST:.0f} s: {path} answers {last}") from None

    def _client(self) -> httpx2.AsyncClient:
        context = ssl.create_default_context(cadata=self.entry.ca.decode())
        # The ssl module reads keys from files only; this one is never on a disk.
        handle = os.memfd_create("onepass", os.MFD_CLOEXEC)
        with os.fdopen(handle, "wb") as pem:
            pem.write(self.entry.private_key + b"\n" + self.entry.certificate)
            pem.flush()
            context.load_cert_chain(f"/proc/self/fd/{handle}")
        return httpx2.AsyncClient(base_url=self.entry.server, verify=context, trust_env=False, timeout=5)


async def _ask(client: httpx2.AsyncClient, path: str) -> str:
    try:
        answer = await client.get(path)
    except httpx2.HTTPError as error:
        return str(error) or type(error).__name__
    return str(answer.status_code) if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"
