"""`onepass pass`: give somebody access to clusters, look at what is given, take it back."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli import durations, options, output
from onepass.cli.failure import Failure
from onepass.cli.options import DataDir, Kubeconfig, Output
from onepass.cli.output import Format, safe

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from onepass.cli.client import Gateway
    from onepass.cli.issuing import Issued, Order

app = typer.Typer(no_args_is_help=True, help="Give somebody access to clusters, see what is given, take it back.")

PassName = Annotated[str, typer.Argument(help="The pass's name.", autocompletion=options.complete_passes)]


Kubeconfigs = Annotated[
    Path, typer.Option("--output", "-o", help="Where to write the user's kubeconfig; - for standard output.")
]
Groups = Annotated[list[str] | None, typer.Option(help="A group that the certificate carries too; repeatable.")]
Clusters = Annotated[
    list[str] | None, typer.Option(help="A cluster; repeatable.", autocompletion=options.complete_clusters)
]
Selector = Annotated[
    str,
    typer.Option(
        "--selector", "-l", help="Instead of names: every cluster with these labels, now and later: env=dev,team=a."
    ),
]
Verbs = Annotated[str, typer.Option(help="What may be done, by commas; '*' for everything.")]
Resources = Annotated[
    list[str] | None,
    typer.Option(
        help="What it may be done to: pods, pods/log, deployments.apps; repeatable. Default: '*', all of them.",
        show_default=False,
    ),
]
Namespaces = Annotated[
    list[str] | None,
    typer.Option("--namespace", "-n", help="Only in this namespace; repeatable. Default: all.", show_default=False),
]
Impersonate = Annotated[
    bool, typer.Option("--impersonate", help="Let the members see the user by name; their own RBAC applies too.")
]
NewName = Annotated[str, typer.Option(help="The pass's name. Default: made of USER.", show_default=False)]


@app.command()
def issue(
    ctx: typer.Context,
    user: Annotated[str, typer.Argument(help="The user's name; the certificate carries it.")],
    output_file: Kubeconfigs,
    group: Groups = None,
    cluster: Clusters = None,
    selector: Selector = "",
    verbs: Verbs = "get,list,watch",
    resource: Resources = None,
    namespace: Namespaces = None,
    for_: Annotated[str, typer.Option("--for", help="How long: 30m, 8h, 7d.")] = "8h",
    impersonate: Impersonate = False,
    name: NewName = "",
    force: Annotated[bool, typer.Option("--force", help="Write over the output file if it is there.")] = False,
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
) -> None:
    """Issue a pass: a certificate, the rules that it opens, and one kubeconfig with a context per cluster.

    Without --verbs and --resource the pass may read everything on those clusters, secrets included.
    exec, attach, cp and port-forward need the verb create on pods/exec, pods/attach, pods/portforward.
    The user's key is made on this machine and is written nowhere but into the kubeconfig.

    [bold]Examples[/]

    onepass pass issue alice --cluster prod --cluster staging -o alice.kubeconfig
    onepass pass issue bob --selector env=dev --verbs '*' --namespace web --for 5d -o bob.kubeconfig
    onepass pass issue carol --cluster prod --resource pods --resource pods/log --for 30m -o carol.kubeconfig
    onepass pass issue dave --cluster prod --verbs create --resource pods/exec --namespace web -o dave.kubeconfig
    """
    from onepass.cli import issuing

    order = issuing.Order(
        user=user,
        groups=tuple(group or ()),
        clusters=tuple(cluster or ()),
        selector=selector,
        verbs=_split(verbs),
        resources=tuple(resource or ("*",)),
        namespaces=tuple(namespace or ()),
        seconds=durations.parse(for_, "--for"),
        impersonate=impersonate,
        name=name,
    )
    if str(output_file) != "-":
        _writable(output_file, force)
    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        _issue(gateway, order, output_file)


def _issue(gateway: "Gateway", order: "Order", path: Path) -> None:
    """Issue, write, tell. What cannot be written is taken back."""
    from contextlib import ExitStack
    from datetime import UTC, datetime

    from onepass.cli import issuing

    now = datetime.now(UTC).replace(microsecond=0)  # as finely as the API keeps time
    to_stdout = str(path) == "-"
    with ExitStack() as made:
        with output.waiting(f"issuing a pass to {order.user}"):
            issued = issuing.issue(gateway, order, now, made)
        if to_stdout:
            sys.stdout.write(issued.config.decode())
            sys.stdout.flush()
        else:
            _write(path, issued.config)
        made.pop_all()
    _tell(order, issued, path, now, output.note if to_stdout else output.say)


def _split(verbs: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(verb.strip() for verb in verbs.split(",") if verb.strip()))
    if not found:
        raise Failure("--verbs is empty", "write for example --verbs get,list,watch, or --verbs '*'")
    return found


def _writable(path: Path, force: bool) -> None:
    """Find out before anything is made."""
    if path.exists() and not path.is_file():
        raise Failure(f"{path} is not a file")
    if path.exists() and not force:
        raise Failure(f"{path} is there already", "name another file with -o, or write over it with --force")
    if not path.parent.is_dir():
        raise Failure(f"there is no folder {path.parent}", "make it first, or name another file with -o")


def _write(path: Path, content: bytes) -> None:
    from onepass.runtime import datadir

    try:
        datadir.write_private(path, content)
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error.strerror})", "nothing was issued") from error


def _tell(order: "Order", issued: "Issued", path: Path, now: "datetime", say: "Callable[[str], None]") -> None:
    from onepass.api import meta
    from onepass.cli import passviews

    for sentence in passviews.sentences(issued.granted, now):
        say(sentence)
    if order.groups:
        say(f"The certificate carries {safe(', '.join(f'group {group}' for group in order.groups))} too.")
    over = passviews.ends(issued.granted)
    if over is not None and issued.until < over:
        told = durations.clock(issued.until, now)
        say(f"[yellow]The certificate ends earlier[/], {told}: that is the longest this gateway signs.")
    if str(path) != "-":
        say(f"Written to [bold]{safe(path)}[/], with the contexts {safe(', '.join(issued.contexts))}.")
        say("Hand it over as you would a password. Its user types:")
        say(f"  export KUBECONFIG={safe(path)}")
        say(f"  kubectl --context {safe(issued.clusters[0])} auth whoami")
    say(f"Take it back with: onepass pass revoke {safe(shlex.quote(meta.name(issued.granted)))}")


@app.command("list")
def list_(
    ctx: typer.Context, kubeconfig: Kubeconfig = None, data_dir: DataDir = None, format: Output = Format.table
) -> None:
    """List the passes: who, where, what, until when, and whether it is in force.

    [bold]Example[/]

    onepass pass list
    """
    from datetime import UTC, datetime

    from onepass.cli import client, passviews

    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        passes = gateway.list(client.PASSES)
    if format is not Format.table:
        output.items(format, passes)
    elif passes:
        output.table(passviews.COLUMNS, passviews.rows(passes, datetime.now(UTC)))
    else:
        output.say("No pass yet. Issue one: onepass pass issue USER --cluster NAME -o FILE")


@app.command()
def show(
    ctx: typer.Context,
    name: PassName,
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """Tell everything about one pass, in sentences.

    [bold]Example[/]

    onepass pass show alice-4f2a1c
    """
    from datetime import UTC, datetime

    from onepass.cli import client, passviews

    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        granted = gateway.get(f"{client.PASSES}/{client.segment(name)}")
    if format is not Format.table:
        output.data(format, granted)
        return
    for sentence in passviews.sentences(granted, datetime.now(UTC)):
        output.say(sentence)


@app.command()
def revoke(ctx: typer.Context, name: PassName, kubeconfig: Kubeconfig = None, data_dir: DataDir = None) -> None:
    """Take a pass back: suspend it and revoke its certificate.

    The next request is refused, on open connections too. Doing it twice does no harm.
    The Pass stays, so that one sees what was given: kubectl delete pass NAME removes it.

    [bold]Example[/]

    onepass pass revoke alice-4f2a1c
    """
    from onepass.cli import issuing, passviews

    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        revoked = issuing.revoke(gateway, name)
    if revoked.already:
        output.say(f"Pass {safe(name)} was suspended before.")
    else:
        output.say(f"Pass [bold]{safe(name)}[/] is revoked. {safe(passviews.who(revoked.before))} no longer may")
        output.say(f"  {safe(passviews.what(revoked.before))}")
        output.say(f"on {safe(passviews.where(revoked.before))}.")
    output.say(revoked.certificate)
