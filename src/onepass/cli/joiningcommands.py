"""`onepass cluster join`, `leave` and `rotate`: what is done in a member as its administrator."""

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
    Wait,
)
from onepass.cli.options import DataDir, Output
from onepass.cli.output import Format, safe

if TYPE_CHECKING:
    from onepass.api.meta import Object
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
    bound token of the account and renews it before it ends. When anything fails, nothing is left in either place.
    A kubeconfig that logs in by a program (exec), as those of clouds do, will do.

    [bold]Examples[/]

    onepass cluster join prod --kubeconfig ~/.kube/config --context prod-admin --label env=prod
    onepass cluster join edge --kubeconfig edge.kubeconfig --impersonate
    onepass cluster join audit --kubeconfig audit.kubeconfig --role view
    """
    from onepass.cli import durations, enrolment, joining, memberclient

    if role and impersonate:
        raise Failure("with --impersonate the account gets no role but that of impersonating users", "leave out --role")
    seconds = _seconds(durations.parse(token_duration))
    access = _access(kubeconfig, context)
    wish = enrolment.Wish(provider, display_name, description, label or (), impersonate)
    ground = foothold.Foothold(name, namespace, "" if impersonate else role or foothold.ROLE)
    with options.gateway(ctx, None, data_dir) as gateway, memberclient.Member(access) as member:

        def judge() -> "Object | None":
            with output.waiting(f"{name} is joined; waiting until the gateway has looked at it"):
                return enrolment.verdict(gateway, name)

        made = joining.Join(gateway, member, access, wish, ground, seconds).run(judge if wait else None)
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
    output.say(f"Give somebody access: onepass pass issue USER --cluster {safe(name)} -o user.kubeconfig")


def leave(
    ctx: typer.Context,
    name: ClusterName,
    kubeconfig: MemberKubeconfig,
    context: MemberContext = "",
    namespace: Annotated[
        str,
        typer.Option(help="The namespace that was made in the member. Default: what the gateway remembers of it."),
    ] = "",
    data_dir: DataDir = None,
) -> None:
    """Take a joined member cluster away, and what `join` has made in it: service account, rights and namespace.

    Every token of the account ends with it. This may be repeated when it broke off.

    [bold]Example[/]

    onepass cluster leave prod --kubeconfig ~/.kube/config --context prod-admin
    """
    from onepass.cli import joining, memberclient

    access = _access(kubeconfig, context)
    with options.gateway(ctx, None, data_dir) as gateway, memberclient.Member(access) as member:
        gone = joining.Leave(gateway, member, name, namespace).run()
    if not gone:
        raise Failure(f"there is no cluster {name}, and nothing of it in the member")
    for each in gone:
        output.say(f"{safe(each)} is removed.")


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
    from onepass.cli import durations, joining, memberclient

    seconds = _seconds(durations.parse(token_duration))
    access = _access(kubeconfig, context) if kubeconfig is not None else None
    with options.gateway(ctx, None, data_dir) as gateway:
        rotation = joining.Rotation(gateway, name)
        if access is None:
            with output.waiting(f"waiting until the gateway has a new token for {name}"):
                made = rotation.renew()
        else:
            with memberclient.Member(access) as member:
                made = rotation.swap(access, member, seconds)
    if format is not Format.table:
        output.data(format, made)
        return
    credential = meta.section(meta.section(meta.section(made, "spec"), "access"), "credential")
    output.say(
        f"{safe(name)} has a new credential: {safe(meta.text(credential, 'type'))} "
        f"{safe(meta.text(credential, 'fingerprint'))}"
    )


def _access(kubeconfig: Path, context: str) -> "Access":
    from datetime import UTC, datetime

    from onepass.cli import loginprogram, memberconfig

    return memberconfig.Kubeconfig(kubeconfig).read(context, now=datetime.now(UTC), login=loginprogram.run)


def _seconds(seconds: int) -> int:
    if seconds < memberoptions.SHORTEST_TOKEN:
        raise Failure("a token lasts at least ten minutes", "name a longer --token-duration, for example 7d")
    return seconds
