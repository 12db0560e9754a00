"""`onepass status` and `onepass version`: how the gateway, its clusters and its passes are."""

import re
from datetime import datetime
from typing import Annotated

import typer

from onepass import __version__
from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.cli import options, output
from onepass.cli.failure import Failure
from onepass.cli.options import DataDir, Kubeconfig, Output
from onepass.cli.output import Format, safe

_CHECK = re.compile(r"^\[([+-])\](\S+)", re.MULTILINE)


def checks(text: str) -> dict[str, bool]:
    """The lines of `/readyz?verbose`: `[+]name ok` and `[-]name failed: ...`."""
    return {name: sign == "+" for sign, name in _CHECK.findall(text)}


def status(
    ctx: typer.Context, kubeconfig: Kubeconfig = None, data_dir: DataDir = None, format: Output = Format.table
) -> None:
    """Show how the gateway, its clusters and its passes are.

    The exit status is 1 when the gateway is not ready. Clusters that are unwell are named, and change nothing.

    [bold]Examples[/]

    onepass status
    onepass status -o json
    """
    from datetime import UTC

    from onepass.cli import client, clusterviews, passviews

    now = datetime.now(UTC)
    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        url = gateway.url
        code, text = gateway.raw("/readyz?verbose")
        version = meta.text(gateway.get("/version"), "gitVersion")
        clusters = gateway.list(client.CLUSTERS)
        passes = gateway.list(client.PASSES)
    found = checks(text)
    sick = [cluster for cluster in clusters if not clusterviews.health(cluster).healthy]
    force = [granted for granted in passes if passviews.standing(granted, now) == "yes"]
    soon = [granted for granted in force if passviews.expires_soon(granted, now)]
    if format is not Format.table:
        ready: dict[str, JSON] = dict(found)
        unhealthy: list[JSON] = [meta.name(cluster) for cluster in sick]
        expiring: list[JSON] = [meta.name(granted) for granted in soon]
        told: Object = {
            "gateway": url,
            "version": version,
            "ready": code == 200,
            "checks": ready,
            "clusters": {"total": len(clusters), "healthy": len(clusters) - len(sick), "unhealthy": unhealthy},
            "passes": {"total": len(passes), "active": len(force), "expiringSoon": expiring},
        }
        output.data(format, told)
    else:
        failing = ", ".join(name for name, good in found.items() if not good)
        output.facts(
            [
                ("Gateway", safe(url)),
                ("Version", safe(version)),
                (
                    "Ready",
                    "[green]yes[/]" if code == 200 else f"[red]no[/]: {safe(failing)}",
                ),
                ("Clusters", f"{len(clusters)}, {len(clusters) - len(sick)} healthy"),
                *(("", f"[red]{safe(meta.name(c))}[/] {safe(clusterviews.health(c).why)}") for c in sick),
                ("Passes", f"{len(passes)}, {len(force)} in force"),
                *(("", f"[yellow]{safe(meta.name(g))}[/] ends {_ends(g, now)}") for g in soon),
            ]
        )
    if code != 200:
        raise Failure(f"the gateway at {url} is not ready", "see what it logs")


def _ends(granted: Object, now: datetime) -> str:
    from onepass.cli import durations, passviews

    over = passviews.ends(granted)
    return durations.clock(over, now) if over else "never"


def version(
    ctx: typer.Context,
    client_only: Annotated[bool, typer.Option("--client", help="Only this program's version; ask no gateway.")] = False,
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """Show the version of this program and of the gateway.

    [bold]Example[/]

    onepass version --client
    """
    told: Object = {"client": __version__}
    missing: Failure | None = None
    if not client_only:
        try:
            with options.gateway(ctx, kubeconfig, data_dir) as gateway:
                told["server"] = meta.text(gateway.get("/version"), "gitVersion")
        except Failure as error:  # the client's own version is still worth telling
            missing = error
    if format is not Format.table:
        output.data(format, told)
    else:
        output.facts([("Client", __version__), ("Server", safe(told.get("server", "")))])
    if missing is not None:
        raise missing
