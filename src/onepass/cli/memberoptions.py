"""Arguments and options that the commands about member clusters share."""

from pathlib import Path
from typing import Annotated

import typer

from onepass.cli import options

SHORTEST_TOKEN = 600  # seconds; no TokenRequest may ask for less

NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="What the cluster is called here: lower-case letters, digits, dashes.")
]
ClusterName = Annotated[
    str, typer.Argument(metavar="NAME", help="The cluster's name.", autocompletion=options.complete_clusters)
]
MemberKubeconfig = Annotated[
    Path, typer.Option("--kubeconfig", "-f", help="The member's kubeconfig, as you use it with kubectl.")
]
MemberContext = Annotated[
    str, typer.Option(help="Its context. Default: the current one.", autocompletion=options.complete_contexts)
]
ProxyURL = Annotated[
    str | None,
    typer.Option(
        "--proxy-url",
        metavar="URL",
        help="An HTTP proxy on the way to the member, for example http://user:password@proxy.example.com:3128. "
        "Default: the kubeconfig's proxy-url.",
        show_default=False,
    ),
]
Label = Annotated[
    list[str] | None, typer.Option("--label", help="A label key=value, for passes to select by; repeatable.")
]
Provider = Annotated[str, typer.Option(help="Who runs the cluster, for example eks or on-premises.")]
DisplayName = Annotated[str, typer.Option(help="What people call it. Default: NAME.")]
Description = Annotated[str, typer.Option(help="A sentence about it.")]
Impersonate = Annotated[
    bool,
    typer.Option(
        "--impersonate", help="Let the member see each user by name, so that its own RBAC applies on top of the pass."
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the gateway has looked at the member.")]
