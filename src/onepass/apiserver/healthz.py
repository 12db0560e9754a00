"""/livez, /readyz and /healthz (https://kubernetes.io/docs/reference/using-api/health-checks/)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from onepass.api import errors
from onepass.apiserver import parameters
from onepass.apiserver.ports import Check

DEADLINE = 2.0  # seconds for one check

Handler = Callable[[Request], Awaitable[Response]]


async def _ping() -> str:
    return ""


def routes(checks: Mapping[str, Check]) -> list[Route]:
    """`/livez` says that the process answers; `/readyz` and `/healthz` ask every check too."""
    every = {"ping": _ping, **checks}
    found = []
    for path, asked in (("/livez", {"ping": _ping}), ("/readyz", every), ("/healthz", every)):
        found += [Route(path, _all(path, asked)), Route(f"{path}/{{name}}", _one(asked))]
    return found


def _all(path: str, checks: Mapping[str, Check]) -> Handler:
    async def answer(request: Request) -> Response:
        excluded = request.query_params.getlist("exclude")
        asked = {name: check for name, check in checks.items() if name not in excluded}
        told = dict(zip(asked, await asyncio.gather(*map(_ask, asked.values())), strict=True))
        lines = [f"[{'-' if why else '+'}]{name} {f'failed: {why}' if why else 'ok'}" for name, why in told.items()]
        verdict = f"{path[1:]} check {'failed' if any(told.values()) else 'passed'}"
        if any(told.values()):
            return PlainTextResponse("\n".join([*lines, verdict, ""]), 500)
        verbose = parameters.flag(request.query_params.get("verbose"))
        return PlainTextResponse("\n".join([*lines, verdict, ""]) if verbose else "ok")

    return answer


def _one(checks: Mapping[str, Check]) -> Handler:
    async def answer(request: Request) -> Response:
        check = checks.get(request.path_params["name"])
        if check is None:
            raise errors.no_such_path()
        why = await _ask(check)
        return PlainTextResponse(f"internal server error: {why}\n" if why else "ok", 500 if why else 200)

    return answer


async def _ask(check: Check) -> str:
    try:
        async with asyncio.timeout(DEADLINE):
            return await check()
    except TimeoutError:
        return f"no answer within {DEADLINE:g} seconds"
