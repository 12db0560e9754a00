"""`onepass explain` and `onepass who-can`: why somebody may or may not, and who may."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli import options, output
from onepass.cli.options import DataDir, Kubeconfig, Output
from onepass.cli.output import Format

if TYPE_CHECKING:
    from onepass.access.compile import Objects
    from onepass.access.explaining import Question

Verb = Annotated[str, typer.Argument(help="A verb, such as get, list or create (which exec is); or an HTTP method.")]
What = Annotated[
    str, typer.Argument(metavar="RESOURCE", help="pods, pods/log, deployments.apps; or a path, such as /metrics.")
]
OnCluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        help="On this cluster; without it, on the gateway's own API.",
        autocompletion=options.complete_clusters,
        show_default=False,
    ),
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="In this namespace; without it, in all of them.", show_default=False)
]
Name = Annotated[str, typer.Option(help="The one object of this name.", show_default=False)]
Subresource = Annotated[str, typer.Option(help="As in pods/log.", show_default=False)]


def explain(
    ctx: typer.Context,
    user: Annotated[str, typer.Argument(help="Whom it is about: the name in the certificate or the token.")],
    verb: Verb,
    resource: What,
    cluster: OnCluster = "",
    namespace: Namespace = "",
    group: Annotated[list[str] | None, typer.Option(help="A group that the user is in; repeatable.")] = None,
    name: Name = "",
    subresource: Subresource = "",
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """Tell why a user may do something: by which pass or role; or what is missing, and the smallest rule that would do.

    The gateway does not know a user's groups until they come: name them with --group.

    [bold]Examples[/]

    onepass explain alice delete pods --cluster prod --namespace web
    onepass explain alice create pods/exec --cluster prod -n web --group web-team
    onepass explain bob list clusters
    """
    from onepass.cli import answers

    identity = answers.identity(user, tuple(group or ()))
    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        asked = answers.question(gateway, identity, cluster, verb, resource, namespace, name, subresource)
        objects = answers.objects(gateway)
        issuing = answers.may_issue(gateway)
    _explain(objects, asked, issuing, format)


def _explain(objects: "Objects", asked: "Question", issuing: bool, format: Format) -> None:
    from onepass.access import explaining
    from onepass.cli import answers

    answer = explaining.explain(objects, asked, time.time())
    if format is not Format.table:
        output.data(format, answers.told(asked, answer))
        return
    for line in answers.sentences(asked, answer, time.time()):
        output.say(line)
    if not answer.allowed:
        output.say()
        for line in answers.remedy(asked, issuing):
            output.say(line)


def who_can(
    ctx: typer.Context,
    verb: Verb,
    resource: What,
    cluster: OnCluster = "",
    namespace: Namespace = "",
    name: Name = "",
    subresource: Subresource = "",
    kubeconfig: Kubeconfig = None,
    data_dir: DataDir = None,
    format: Output = Format.table,
) -> None:
    """List everybody who may do something, and by which pass or role.

    [bold]Examples[/]

    onepass who-can create pods/exec --cluster prod --namespace web
    onepass who-can update clusters
    """
    from onepass.access import explaining
    from onepass.access.identity import Identity
    from onepass.cli import answers

    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        asked = answers.question(gateway, Identity(""), cluster, verb, resource, namespace, name, subresource)
        found = explaining.who_can(answers.objects(gateway), asked, time.time())
    if format is not Format.table:
        output.data(format, {"rights": [answers.right(each) for each in found]})
    elif found:
        width = len(answers.COLUMNS) if cluster else 2
        output.table(answers.COLUMNS[:width], [row[:width] for row in answers.rows(found, time.time())])
    else:
        output.say("Nobody.")
