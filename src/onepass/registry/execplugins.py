"""Which credential programs a Cluster may name: those that the operator listed, with these arguments, for these hosts.

Whoever writes Clusters chooses where the program's credential is sent and what the program is asked: so the operator
says both. Nothing of a Cluster reaches the program but what a listed pattern leaves open.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from onepass.api import meta
from onepass.api.meta import Object

ANY = "*"  # an argument of the cluster's choice, which may not look like an option


@dataclass(frozen=True, slots=True)
class Plugin:
    """One listed program. `env` is what it gets of the operator, `open_env` which variables a Cluster may set."""

    command: str  # an absolute path
    args: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()  # patterns of host names, such as *.eks.amazonaws.com
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    open_env: tuple[str, ...] = ()


def find(plugins: Sequence[Plugin], program: Object, endpoint: str) -> tuple[Plugin | None, str]:
    """The plugin by which an execConfig may get credentials for an endpoint; else None, and what stands against it."""
    command, why = meta.text(program, "command"), "the operator of the gateway has not allowed this program"
    for plugin in plugins:
        if command not in (plugin.command, PurePosixPath(plugin.command).name):
            continue
        if not _fits(plugin.args, arguments(program)):
            why = "the operator of the gateway has not allowed these arguments"
        elif not any(fnmatchcase(_host(endpoint), each.lower()) for each in plugin.endpoints):
            why = "the operator of the gateway has not allowed this program for this endpoint"
        elif not set(environment(program)) <= set(plugin.open_env):
            why = "the operator of the gateway has not allowed these environment variables"
        else:
            return plugin, ""
    return None, why


def arguments(program: Object) -> tuple[str, ...]:
    listed = program.get("args")
    return tuple(str(each) for each in listed) if isinstance(listed, list) else ()


def environment(program: Object) -> dict[str, str]:
    """What an execConfig sets."""
    listed = program.get("env")
    entries = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return {meta.text(each, "name"): meta.text(each, "value") for each in entries}


def _fits(patterns: Sequence[str], given: Sequence[str]) -> bool:
    return len(patterns) == len(given) and all(
        value == pattern or (pattern == ANY and value != "" and not value.startswith("-") and "\0" not in value)
        for pattern, value in zip(patterns, given, strict=True)
    )


def _host(endpoint: str) -> str:
    try:
        return urlsplit(endpoint).hostname or ""
    except ValueError:
        return ""
