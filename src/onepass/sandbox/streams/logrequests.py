"""pods/log: what a container has written, as plain text, whole or followed."""

import time
from collections.abc import AsyncIterator
from datetime import datetime

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from onepass.api import errors
from onepass.sandbox.containerlogs import Options
from onepass.sandbox.streams.targets import Containers


class Logs:
    """Answers GET with the options of core/v1 PodLogOptions."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        asked = request.query_params
        options = read_options(request, time.time())
        log = await self._containers.log(
            request.path_params["namespace"],
            request.path_params["name"],
            asked.get("container", ""),
            previous=_flag(request, "previous"),
        )
        response = StreamingResponse(_chunks(log.read(options)), media_type="text/plain")
        await response(scope, receive, send)


async def _chunks(log: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b""  # the headers go out at once, also when the container is silent
    async for chunk in log:
        yield chunk


def read_options(request: Request, now: float) -> Options:
    """Raises bad_request."""
    asked = request.query_params
    since: float | None = None
    seconds = _number(request, "sinceSeconds", least=1)
    if seconds is not None:
        since = now - seconds
    if moment := asked.get("sinceTime"):
        if since is not None:
            raise errors.bad_request("at most one of sinceTime or sinceSeconds may be specified")
        try:
            since = datetime.fromisoformat(moment).timestamp()
        except ValueError as error:
            raise errors.bad_request(f"invalid sinceTime {moment!r}: must be a time in RFC 3339 form") from error
    stream = asked.get("stream", "All")
    if stream not in ("All", "Stdout", "Stderr"):
        raise errors.bad_request(f'invalid stream "{stream}": must be All, Stdout or Stderr')
    tail = _number(request, "tailLines", least=0)
    if tail is not None and stream != "All":
        raise errors.bad_request("`tailLines` and specific `stream` are mutually exclusive for now")
    return Options(
        follow=_flag(request, "follow"),
        tail=tail,
        since=since,
        timestamps=_flag(request, "timestamps"),
        limit=_number(request, "limitBytes", least=1),
        stream="" if stream == "All" else stream.lower(),
    )


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("1", "true")


def _number(request: Request, name: str, *, least: int) -> int | None:
    text = request.query_params.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) >= least):
        raise errors.bad_request(f'invalid {name} "{text}": must be a whole number of at least {least}')
    return int(text)
