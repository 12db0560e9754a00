"""`onepass cluster`: register member clusters, look at them, take them away."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli import joiningcommands, options, output
from onepass.cli.failure import Failure, Refused
from onepass.cli.memberoptions import (
    ClusterName,
    Description,
    DisplayName,
    Impersonate,
    Label,
    MemberContext,
    MemberKubeconfig,
    NewName,
    Provider,
    ProxyURL,
    Wait,
)
from onepass.cli.options import DataDir, Kubeconfig, Output
from onepass.cli.output import Format, safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onepass.cli.enrolment import Result

app = typer.Typer(no_args_is_help=True, help="Register member clusters, look at them, take them away.")


@app.command()
def add(
    ctx: typer.Context,
    name: NewName,
    kubeconfig: MemberKubeconfig,
    context: MemberContext = "",
    proxy_url: ProxyURL = None,
    provider: Provider = "",
    label: Label = None,
    display_name: DisplayName = "",
    description: Description = "",
    impersonate: Impersonate = False,
    wait: Wait = True,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """Register one member cluster, and tell whether the gateway reaches it.

    The credential of the context goes to the gateway, which seals it and never shows it again. A member that the
    gateway does not get through to is not registered, unless with --no-wait.
    Better than a person's credential is an account of the gateway's own: onepass cluster join.
    Name the gateway's own kubeconfig before the command: onepass --kubeconfig FILE cluster add ...

    [bold]Examples[/]

    onepass cluster add prod --kubeconfig ~/.kube/config --context prod-admin
    onepass cluster add edge-7 -f edge.kubeconfig --provider k3s --label env=edge --label site=bern
    """
    from datetime import UTC, datetime

    from onepass.cli import enrolment, memberconfig

    access = memberconfig.Kubeconfig(kubeconfig).read(context, now=datetime.now(UTC), proxy_url=proxy_url, name=name)
    wish = enrolment.Wish(provider, display_name, description, label or (), impersonate)
    with options.gateway(ctx, None, data_dir) as gateway:
        if enrolment.leads_back(gateway, access.server):
            raise Failure(f"context {access.context} leads to this gateway itself", "name a member's own kubeconfig")
        made = enrolment.register(gateway, enrolment.cluster(name, access, wish))
        for warning in access.warnings:
            output.note(f"[yellow]note:[/] {safe(warning)}")
        result = enrolment.Result(access.context, name, "registered")
        if wait:
            try:
                with output.waiting(f"{name} is registered; waiting until the gateway has looked at it"):
                    found = enrolment.verdict(gateway, name)
            except KeyboardInterrupt:
                known = safe(shlex.quote(name))
                output.note(f"[yellow]note:[/] {known} stays registered. See how it is: onepass cluster show {known}")
                raise
            result, made = enrolment.settled(gateway, result, found), found or made
    if not result.good:
        raise Failure(
            f"{name} is not registered, because the gateway would not get through: {result.why}",
            f"{result.hint or 'mend that'}; then add it again, or register it as it is with --no-wait",
        )
    if format is not Format.table:
        output.data(format, made)
    elif result.outcome == "healthy":
        output.say(f"[green]{safe(name)} is registered and healthy[/] ({safe(result.version)}).")
        output.say(
            f"Give somebody access: onepass pass issue USER --cluster {safe(shlex.quote(name))} -o user.kubeconfig"
        )
    else:
        output.say(f"{safe(name)} is registered. See how it is: onepass cluster show {safe(shlex.quote(name))}")


app.command()(joiningcommands.join)


@app.command("import")
def import_(
    ctx: typer.Context,
    kubeconfig: MemberKubeconfig,
    provider: Provider = "",
    label: Label = None,
    impersonate: Impersonate = False,
    wait: Wait = True,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """Register every context of a kubeconfig.

    Contexts that lead to the same server are registered once, and what is registered already stays as it is,
    so this may be repeated. What the gateway does not get through to is not registered, unless with --no-wait; the exit
    status is 1 then.

    [bold]Example[/]

    onepass cluster import --kubeconfig ~/.kube/config --label team=platform
    """
    from datetime import UTC, datetime

    from onepass.cli import enrolment, memberconfig

    config = memberconfig.Kubeconfig(kubeconfig)
    if not config.contexts:
        raise Failure(f"{kubeconfig} has no context at all")
    wish = enrolment.Wish(provider=provider, labels=label or (), impersonate=impersonate)
    enrolment.pairs(wish.labels)
    with options.gateway(ctx, None, data_dir) as gateway:
        results = enrolment.Import(gateway, config, wish, datetime.now(UTC)).run(wait, output.progress)
    if format is not Format.table:
        output.items(format, [result.plain() for result in results])
    else:
        _tabulate(results)
    bad = [result for result in results if not result.good]
    if bad:
        raise Failure(
            f"{len(bad)} of {len(results)} contexts did not work",
            "mend them and import again; what is registered stays as it is",
        )


def _tabulate(results: "Sequence[Result]") -> None:
    colours = {"healthy": "green", "registered": "green", "skipped": "dim", "unhealthy": "yellow", "failed": "red"}
    output.table(
        ("CONTEXT", "CLUSTER", "OUTCOME", "WHY"),
        [
            (
                safe(r.context),
                safe(r.cluster or "-"),
                f"[{colours[r.outcome]}]{r.outcome}[/]",
                safe(r.version if r.outcome == "healthy" else "; ".join(filter(None, (r.why, r.hint)))),
            )
            for r in results
        ],
    )


@app.command("list")
def list_(
    ctx: typer.Context,
    selector: Annotated[str, typer.Option("--selector", "-l", help="A label selector, for example env=prod.")] = "",
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """List the member clusters and how they are.

    [bold]Examples[/]

    onepass cluster list
    onepass cluster list --selector env=prod -o yaml
    """
    from datetime import UTC, datetime

    from onepass.cli import client, clusterviews

    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        clusters = gateway.list(client.CLUSTERS, selector)
    if format is not Format.table:
        output.items(format, clusters)
    elif clusters:
        output.table(clusterviews.COLUMNS, clusterviews.rows(clusters, datetime.now(UTC)))
        if told := clusterviews.advice(clusters):
            output.note(told)
    else:
        output.say("No cluster yet. Register one: onepass cluster add NAME --kubeconfig FILE")


@app.command()
def show(
    ctx: typer.Context,
    name: ClusterName,
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """Show everything about one member cluster; of its credential, the type and a fingerprint.

    [bold]Example[/]

    onepass cluster show prod
    """
    from datetime import UTC, datetime

    from onepass.cli import clusterviews, enrolment

    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        cluster = enrolment.registered(gateway, name)
    if format is not Format.table:
        output.data(format, cluster)
    else:
        output.facts(clusterviews.facts(cluster, datetime.now(UTC)))


app.command()(joiningcommands.rotate)


@app.command()
def remove(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="The clusters.", autocompletion=options.complete_clusters)
    ],
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
) -> None:
    """Take member clusters away, with the credentials that the gateway holds for them.

    The members themselves are not touched: what `join` has made there, `onepass cluster leave` takes away. Passes that
    name them stay, and grant nothing there any more.

    [bold]Example[/]

    onepass cluster remove prod
    """
    from onepass.api import meta
    from onepass.cli import client, foothold

    missing = []
    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        for name in names:
            try:
                path = f"{client.CLUSTERS}/{client.segment(name)}"
                joined = foothold.JOINED in meta.annotations(gateway.get(path))
                gateway.delete(path)
            except Refused as error:
                if error.code != 404:
                    raise
                missing.append(name)
            else:
                output.say(f"{safe(name)} is removed, and its credential with it.")
                if joined:
                    output.note(
                        f"[yellow]note:[/] its service account is still in the member; take it "
                        f"away by: onepass cluster leave {safe(shlex.quote(name))} --kubeconfig FILE"
                    )
    if missing:
        raise Failure(f"there is no cluster {', '.join(missing)}", "see which there are: onepass cluster list")


app.command()(joiningcommands.leave)
