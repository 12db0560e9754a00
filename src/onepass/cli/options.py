"""Options that several commands share, and what the shell completes for them.

The client is imported only when a command runs: `onepass --help` and a Tab press stay quick.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli import output
from onepass.cli.failure import Failure

if TYPE_CHECKING:
    from onepass.cli.client import Gateway

_COMPLETION_SECONDS = 2.0


@dataclass(slots=True)
class Root:
    """What was given before the command: `onepass --kubeconfig F status`."""

    kubeconfig: Path | None = None
    data_dir: Path | None = None


Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        help="The kubeconfig by which to reach the gateway. Default: admin.kubeconfig in the data directory, then "
        "kubectl's own.",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="The data directory of a gateway on this machine. Default: .onepass.", show_default=False),
]
Output = Annotated[output.Format, typer.Option("--output", "-o", help="How to print the result.")]


def gateway(
    context: typer.Context, kubeconfig: Path | None = None, data_dir: Path | None = None, *, timeout: float = 15.0
) -> "Gateway":
    """The client of the gateway that the options name; those after the command win over those before it."""
    from onepass.cli import client

    root = context.find_root().obj
    before = root if isinstance(root, Root) else Root()
    if kubeconfig is None and data_dir is None:
        kubeconfig, data_dir = before.kubeconfig, before.data_dir
    return client.Gateway(
        client.locate(kubeconfig, data_dir),
        timeout=timeout,
        warn=lambda text: output.note(f"[yellow]warning:[/] {output.safe(text)}"),
    )


def data_folder(context: typer.Context, given: Path | None) -> Path:
    """The data directory of a gateway on this machine: `given`, or what stands before the command, $ONEPASS_DATA_DIR
    or ./.onepass."""
    root = context.find_root().obj
    before = root.data_dir if isinstance(root, Root) else None
    return given or before or Path(os.environ.get("ONEPASS_DATA_DIR") or ".onepass")


def pki_folder(context: typer.Context, given: Path | None, hint: str) -> Path:
    """Where that gateway keeps its keys. Raises Failure, with the hint, where there is none."""
    chosen = data_folder(context, given)
    folder = chosen.expanduser() / "pki"
    if not folder.is_dir():
        raise Failure(f"there is no gateway in {chosen}", hint)
    return folder


def _names(context: typer.Context, path: str, incomplete: str) -> Iterable[str]:
    from onepass.api import meta

    options = context.params
    root = context.find_root()
    # During completion no callback has run: the options stand in the parsed parameters of the two commands.
    given = {key: options.get(key) or root.params.get(key) for key in ("kubeconfig", "data_dir")}
    if context.command.name in ("add", "import", "join", "leave", "rotate"):  # their --kubeconfig is the member's
        given["kubeconfig"] = root.params.get("kubeconfig")
    kubeconfig, data_dir = (Path(value) if value else None for value in given.values())
    try:
        with gateway(context, kubeconfig, data_dir, timeout=_COMPLETION_SECONDS) as asked:
            names = [meta.name(obj) for obj in asked.list(path)]
    except Failure:  # a Tab press has nowhere to show an error
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_clusters(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    from onepass.cli import client

    return _names(ctx, client.CLUSTERS, incomplete)


def complete_passes(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    from onepass.cli import client

    return _names(ctx, client.PASSES, incomplete)


def complete_contexts(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Context names of the member's kubeconfig that stands earlier on the line."""
    from onepass.cli import memberconfig

    given = ctx.params.get("kubeconfig")
    try:
        names = memberconfig.Kubeconfig(Path(given)).contexts if given else ()
    except Failure:
        return []
    return [name for name in names if name.startswith(incomplete)]
