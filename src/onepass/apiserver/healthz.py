"""/livez, /readyz and /healthz (https://kubernetes.io/docs/reference/using-api/health-checks/)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from onepass.api import errors
from onepass.apiserver.ports import Check

DEADLINE = 2.0  # seconds for one check

log = structlog.get_logger("onepass.apiserver")

Handler = Callable[[Request], Awaitable[Response]]


async def _ping() -> str:
    return ""


def routes(checks: Mapping[str, Check], closing: asyncio.Event) -> list[Route]:
    """`/livez` says that the process answers; `/readyz` and `/healthz` ask every check too.

    `/readyz` fails from the moment that `closing` is set, so that nobody sends a server that goes down new requests.
    """

    async def shutdown() -> str:
        return "process is shutting down" if closing.is_set() else ""

    every = {"ping": _ping, **checks}
    found = []
    for path, asked in (("/livez", {"ping": _ping}), ("/readyz", {**every, "shutdown": shutdown}), ("/healthz", every)):
        found += [Route(path, _all(path, asked)), Route(f"{path}/", _all(path, asked))]
        found.append(Route(f"{path}/{{name}}", _one(asked)))
    return found


def _all(path: str, checks: Mapping[str, Check]) -> Handler:
    """Every check but those that the query excludes; what failed is told, why is not: anyone may read this."""

    async def answer(request: Request) -> Response:
        excluded = request.query_params.getlist("exclude")
        asked = {name: check for name, check in checks.items() if name not in excluded}
        told = dict(zip(asked, await asyncio.gather(*map(_ask, asked.values())), strict=True))
        lines = [_line(name, told.get(name)) for name in checks]
        if unknown := sorted({name for name in excluded if name not in checks}):
            # As Go quotes them: a client must not be able to make lines of its own.
            named = ",".join(f'"{"".join(c for c in name if c.isprintable())[:64]}"' for name in unknown[:16])
            lines.append(f"warn: some health checks cannot be excluded: no matches for {named}")
        failed = {name: why for name, why in told.items() if why}
        verdict = f"{path[1:]} check {'failed' if failed else 'passed'}"
        if failed:
            log.warning("unhealthy", path=path, failed=failed)
            return PlainTextResponse("\n".join([*lines, verdict, ""]), 500, _HEADERS)
        verbose = "verbose" in request.query_params
        return PlainTextResponse("\n".join([*lines, verdict, ""]) if verbose else "ok", headers=_HEADERS)

    return answer


_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache, private"}


def _line(name: str, why: str | None) -> str:
    if why is None:
        return f"[+]{name} excluded: ok"
    return f"[-]{name} failed: reason withheld" if why else f"[+]{name} ok"


def _one(checks: Mapping[str, Check]) -> Handler:
    async def answer(request: Request) -> Response:
        check = checks.get(request.path_params["name"])
        if check is None:
            raise errors.no_such_path()
        why = await _ask(check)
        return PlainTextResponse(f"internal server error: {why}\n" if why else "ok", 500 if why else 200, _HEADERS)

    return answer


async def _ask(check: Check) -> str:
    try:
        async with asyncio.timeout(DEADLINE):
            return await check()
    except TimeoutError:
        return f"no answer within {DEADLINE:g} seconds"
