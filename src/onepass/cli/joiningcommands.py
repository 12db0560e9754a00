"""`onepass cluster join`, `leave` and `rotate`: what is done in a member as its administrator."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli import foothold, memberoptions, options, output
from onepass.cli.failure import Failure
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
from onepass.cli.options import DataDir, Output
from onepass.cli.output import Format, safe

if TYPE_CHECKING:
    from onepass.api.meta import Object
    from onepass.cli.leaving import Leave
    from onepass.cli.memberconfig import Access

Duration = Annotated[
    str, typer.Option(help="How long each token is to last; the gateway renews it before. The member may shorten it.")
]
_WEEK = "7d"


def join(
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
    role: Annotated[
        str,
        typer.Option(
            help="The ClusterRole of the member that bounds what anybody can do through the gateway. Default: "
            "cluster-admin, so that passes alone are the bound. Not with --impersonate.",
            show_default=False,
        ),
    ] = "",
    namespace: Annotated[
        str, typer.Option(help="The namespace to make in the member for the gateway's service account.")
    ] = foothold.NAMESPACE,
    token_duration: Duration = _WEEK,
    wait: Wait = True,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """Register one member cluster by a service account of the gateway's own, which this makes there.

    Your credential is used once, from here, to make the account and its rights; it is not stored. The gateway gets a
    bound token of the account and renews it before it ends. When anything fails, nothing is left in either place; when
    this itself is cut short, run it again: it takes away what is left, and begins anew.
    A kubeconfig that logs in by a program (exec), as those of clouds do, will do.

    [bold]Examples[/]

    onepass cluster join prod --kubeconfig ~/.kube/config --context prod-admin --label env=prod
    onepass cluster join edge --kubeconfig edge.kubeconfig --impersonate
    onepass cluster join audit --kubeconfig audit.kubeconfig --role view
    """
    from onepass.cli import claims, durations, enrolment, joining, memberclient

    if role and impersonate:
        raise Failure("with --impersonate the account gets no role but that of impersonating users", "leave out --role")
    seconds = _seconds(durations.parse(token_duration, "--token-duration"))
    access = _access(kubeconfig, context, proxy_url)
    wish = enrolment.Wish(provider, display_name, description, label or (), impersonate)
    ground = foothold.Foothold(name, namespace, "" if impersonate else role or foothold.ROLE)
    with options.gateway(ctx, None, data_dir) as gateway, memberclient.Member(access) as member:

        def judge() -> "Object | None":
            with output.waiting(f"{name} is joined; waiting until the gateway has looked at it"):
                return enrolment.verdict(gateway, name)

        claim = claims.claim(gateway, name)
        made = joining.Join(gateway, member, access, wish, ground, claim, seconds).run(judge if wait else None)
    if format is not Format.table:
        output.data(format, made)
        return
    output.say(f"[green]{safe(name)} is joined{' and healthy' if wait else ''}[/].")
    output.say(
        f"The gateway comes as system:serviceaccount:{safe(namespace)}:{foothold.ACCOUNT}, "
        + (
            "and lets the member see each user by name."
            if impersonate
            else f"which has {safe(ground.role)} there; passes decide what users get of it."
        )
    )
    output.say(f"Give somebody access: onepass pass issue USER --cluster {safe(shlex.quote(name))} -o user.kubeconfig")


def leave(
    ctx: typer.Context,
    name: ClusterName,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            "--kubeconfig", "-f", help="The member's kubeconfig, as you use it with kubectl.", show_default=False
        ),
    ] = None,
    context: MemberContext = "",
    proxy_url: ProxyURL = None,
    namespace: Annotated[
        str,
        typer.Option(help="The namespace that was made in the member. Default: what the gateway remembers of it."),
    ] = "",
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Take the cluster away here also when the member cannot be reached or lets nobody in, and tell what "
            "remains there.",
        ),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Take a joined member cluster away, and what `join` has made in it: service account, rights and namespace.

    Every token of the account ends with it. This may be repeated when it broke off.

    [bold]Examples[/]

    onepass cluster leave prod --kubeconfig ~/.kube/config --context prod-admin
    onepass cluster leave lost --force
    """
    from onepass.cli import claims, leaving, memberclient

    access = _member(name, kubeconfig, context, proxy_url, force=force)
    with options.gateway(ctx, None, data_dir) as gateway:
        leave = leaving.Leave(gateway, claims.claim(gateway, name), namespace)
        if access is None:
            gone = _abandon(leave)
        else:
            with memberclient.Member(access) as member:
                try:
                    gone = leave.run(member)
                except leaving.Shut as shut:
                    if not force:
                        raise
                    output.note(f"[yellow]note:[/] {safe(shut.what)}")
                    gone = _abandon(leave)
    if not gone:
        raise Failure(f"there is no cluster {name}, and nothing of it in the member")
    for each in gone:
        output.say(f"{safe(each)} is removed.")


def _member(name: str, kubeconfig: Path | None, context: str, proxy_url: str | None, *, force: bool) -> "Access | None":
    """How the member is reached; None, by force alone, when there is no way."""
    from onepass.cli import leaving

    if kubeconfig is None and not force:
        hint = f"name it with --kubeconfig\n{leaving.without(name)}"
        raise Failure("to leave a member takes its kubeconfig: what `join` made there is to go", hint)
    if kubeconfig is None:
        return None
    try:
        return _access(kubeconfig, context, proxy_url)
    except Failure as failed:
        if not force:
            raise Failure(failed.what, "\n".join(filter(None, (failed.hint, leaving.without(name))))) from failed
        output.note(f"[yellow]note:[/] {safe(failed.what)}")
        return None


def _abandon(leave: "Leave") -> list[str]:
    """What is gone; what remains is told."""
    remains = leave.abandon()
    output.note(
        "[yellow]warning:[/] the member still has what join made: a service account, its rights, and tokens that hold "
        "until they end. Whoever administers it takes that away by:"
    )
    for each in remains:
        output.note(f"  {safe(each)}")
    return [f"Cluster {leave.name}"]


def rotate(
    ctx: typer.Context,
    name: ClusterName,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            "--kubeconfig",
            "-f",
            help="The member's kubeconfig, with the new credential and authorities. Of a joined member: yours, by "
            "which its account gets another token. Default: the gateway renews its token itself.",
            show_default=False,
        ),
    ] = None,
    context: MemberContext = "",
    proxy_url: ProxyURL = None,
    token_duration: Duration = _WEEK,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """Give the gateway another credential for a member, and other authorities; no request fails meanwhile.

    To replace the member's authorities, name a kubeconfig whose certificate-authority-data holds the old and the new
    ones, change the member's certificate, and do it again with the new ones alone.

    [bold]Examples[/]

    onepass cluster rotate prod
    onepass cluster rotate prod --kubeconfig new.kubeconfig --context prod-admin
    """
    from onepass.api import meta
    from onepass.cli import clusterviews, durations, memberclient, rotating

    seconds = _seconds(durations.parse(token_duration, "--token-duration"))
    access = _access(kubeconfig, context, proxy_url) if kubeconfig is not None else None
    with options.gateway(ctx, None, data_dir) as gateway:
        rotation = rotating.Rotation(gateway, name)
        if access is None:
            with output.waiting(f"waiting until the gateway has a new token for {name}"):
                made = rotation.renew()
        else:
            with memberclient.Member(access) as member:
                made = rotation.swap(access, member, seconds)
    if format is not Format.table:
        output.data(format, made)
        return
    credential = clusterviews.credential(made)
    output.say(
        f"{safe(name)} has a new credential: {safe(meta.text(credential, 'type'))} "
        f"{safe(meta.text(credential, 'fingerprint'))}"
    )


def _access(kubeconfig: Path, context: str, proxy_url: str | None) -> "Access":
    from datetime import UTC, datetime

    from onepass.cli import loginprogram, memberconfig

    config = memberconfig.Kubeconfig(kubeconfig)
    return config.read(context, now=datetime.now(UTC), login=loginprogram.run, proxy_url=proxy_url)


def _seconds(seconds: int) -> int:
    if seconds < memberoptions.SHORTEST_TOKEN:
        raise Failure("a token lasts at least ten minutes", "name a longer --token-duration, for example 7d")
    return seconds
