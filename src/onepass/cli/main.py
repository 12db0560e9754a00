"""The command `onepass`: every command in one table, and what becomes of errors.

Exit status: 0 done, 1 refused or failed (one sentence on standard error), 2 the command line itself was wrong,
130 interrupted.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from onepass import __version__
from onepass.cli import (
    cagroup,
    clustergroup,
    credentialgroup,
    login,
    output,
    passgroup,
    questions,
    sealgroup,
    status,
    streamsgroup,
    up,
)
from onepass.cli.failure import Failure
from onepass.cli.options import Root

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        output.say(f"onepass {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="The kubeconfig by which to reach the gateway. Also ONEPASS_KUBECONFIG.", show_default=False),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="The data directory of a gateway on this machine. Also ONEPASS_DATA_DIR. Default: .onepass.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version of this program.")
    ] = False,
) -> None:
    """OnePass: one kubeconfig for every Kubernetes cluster.

    Start with: onepass up --sandbox 2
    """
    ctx.obj = Root(kubeconfig, data_dir)


app.command()(up.up)
app.command()(status.status)
app.add_typer(clustergroup.app, name="cluster")
app.add_typer(passgroup.app, name="pass")
app.command()(questions.explain)
app.command("who-can")(questions.who_can)
app.add_typer(streamsgroup.app, name="streams")
app.add_typer(cagroup.app, name="ca")
app.add_typer(sealgroup.app, name="seal")
app.command()(login.login)
app.add_typer(credentialgroup.app, name="credential")
app.command()(status.version)


def main() -> None:
    """The entry point; ends the process."""
    try:
        app()
    except Failure as error:
        output.fail(error.what, error.hint)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
