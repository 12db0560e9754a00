"""`onepass streams`: the streams that are open now, and ending one."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli import options, output
from onepass.cli.failure import Failure
from onepass.cli.options import DataDir, Kubeconfig, Output
from onepass.cli.output import Format, safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onepass.api.meta import Object
    from onepass.cli.client import Gateway

app = typer.Typer()

User = Annotated[str, typer.Option(help="Only those of this user.")]
Cluster = Annotated[str, typer.Option(help="Only those to this cluster.", autocompletion=options.complete_clusters)]


@app.callback(invoke_without_command=True)
def streams(
    ctx: typer.Context,
    user: User = "",
    cluster: Cluster = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and tell what begins and ends.")] = False,
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """List the streams that are open now: watches, followed logs, exec, attach and port-forward.

    The ID is that of the request: the audit log has it as auditID. Of several replicas each lists its own.

    [bold]Examples[/]

    onepass streams
    onepass streams --user alice --cluster prod -w
    onepass streams end 7b0d4984
    """
    if ctx.invoked_subcommand is not None:
        return
    from onepass.cli import client, streamviews

    if watch and format is not Format.table:
        raise Failure("--watch shows a table", "leave out -o, or watch with kubectl: kubectl get streams -w -o json")
    chosen = streamviews.selector(user, cluster)
    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        if watch:
            _follow(gateway, chosen)
            return
        found = gateway.list(client.STREAMS, fields=chosen)
    if format is not Format.table:
        output.items(format, found)
        return
    if not found:
        output.note("No stream is open." if not chosen else "No such stream is open.")
        return
    output.table(streamviews.COLUMNS, streamviews.rows(found, datetime.now(UTC)))


def _follow(gateway: "Gateway", chosen: str) -> None:
    from onepass.cli import client, streamviews

    output.say("  ".join(streamviews.FOLLOWED))
    for kind, obj in gateway.events(client.STREAMS, chosen):
        line = streamviews.line(kind, obj, datetime.now(UTC))
        if line:
            output.say(line)


@app.command()
def end(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(help="The stream's ID, or as much of its beginning as no other has.")],
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
) -> None:
    """End one stream. Its user may open another, unless the pass is taken away first.

    [bold]Example[/]

    onepass streams end 7b0d4984
    """
    from onepass.cli import client, streamviews

    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        found = one(gateway.list(client.STREAMS), id)
        name = streamviews.name(found)
        gateway.delete(f"{client.STREAMS}/{client.segment(name)}")
    output.say(f"[green]Ended[/]: {streamviews.sentence(found)}.")
    user = streamviews.user(found)
    output.note(f"{safe(user)} may open another while they hold a pass for it: onepass pass list")


def one(streams: "Sequence[Object]", id: str) -> "Object":
    """The stream whose id is, or begins with, `id`. Raises Failure when there are none or several."""
    from onepass.cli import streamviews

    found = [stream for stream in streams if id and streamviews.name(stream).startswith(id)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Failure(f"no open stream has an ID that begins with {id!r}", "see which are open: onepass streams")
    raise Failure(f"{len(found)} open streams have an ID that begins with {id!r}", "give more of it")
