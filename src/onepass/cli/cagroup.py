"""`onepass ca`: the gateway's own certificate authorities, on the machine whose data directory holds them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli import options, output
from onepass.cli.failure import Failure
from onepass.cli.options import DataDir, Output
from onepass.cli.output import Format, safe

if TYPE_CHECKING:
    from onepass.api.meta import Object

_WHERE = "authorities are kept on the gateway's own machine: name its data directory with --data-dir"

app = typer.Typer(no_args_is_help=True, help="See and rotate the gateway's own certificate authorities.")


@app.command("list")
def list_(ctx: typer.Context, data_dir: DataDir = None, format: Output = Format.table) -> None:
    """List the authorities of a gateway on this machine: what each does now, and until when it is trusted.

    [bold]Example[/]

    onepass ca list
    """
    rows = _described(options.pki_folder(ctx, data_dir, _WHERE))
    if format is not Format.table:
        output.items(format, rows)
        return
    columns = ("AUTHORITY", "FOR", "NOW", "ENDS", "FINGERPRINT")
    fields = ("authority", "for", "now", "ends", "fingerprint")
    output.table(columns, [[safe(row[field]) for field in fields] for row in rows])


@app.command()
def rotate(
    ctx: typer.Context,
    client: Annotated[bool, typer.Option("--client", help="The one that issues client certificates.")] = False,
    serving: Annotated[bool, typer.Option("--serving", help="The one by which clients know the gateway.")] = False,
    switch: Annotated[
        bool, typer.Option("--switch", help="Let the newest serving authority serve now, not after 30 days.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Make the next authority. A running gateway takes it within seconds; no connection is cut.

    A new client authority issues at once; certificates of the one before are taken until they have ended.
    A new serving authority is handed out in kubeconfigs at once, beside the old one, and serves after 30 days, or
    when you say --switch. Whoever has not got a new kubeconfig or logged in by then no longer trusts the gateway.

    [bold]Examples[/]

    onepass ca rotate --client
    onepass ca rotate --serving
    onepass ca rotate --switch
    """
    import time

    from onepass.runtime import authorities
    from onepass.runtime.settings import SettingsError

    folder = options.pki_folder(ctx, data_dir, _WHERE)
    if not (client or serving or switch):
        raise Failure("say which: --client, --serving or --switch", "see what there is: onepass ca list")
    try:
        if client:
            made = authorities.rotate(folder, authorities.CLIENT, time.time())
            output.say(f"The client authority {made.number} issues from now on.")
            output.say("Certificates of the one before it are taken until they have ended.")
        if serving:
            made = authorities.rotate(folder, authorities.SERVING, time.time())
            output.say(f"The serving authority {made.number} is in every kubeconfig that is written from now on.")
            output.say("It serves in 30 days, or at once by: onepass ca rotate --switch")
        if switch:
            made = authorities.switch(folder)
            output.say(f"The serving authority {made.number} serves now.")
    except SettingsError as error:
        raise Failure(str(error)) from error


def _described(folder: Path) -> "list[Object]":
    import time
    from datetime import UTC, datetime

    from onepass.cli import durations
    from onepass.pki import certificates
    from onepass.runtime import authorities
    from onepass.runtime.settings import SettingsError

    now = time.time()
    rows: list[Object] = []
    try:
        for name, purpose in ((authorities.CLIENT, "client certificates"), (authorities.SERVING, "the gateway itself")):
            found = authorities.stored(folder, name)
            trusted = authorities.trusted(found, now)
            active = (
                (authorities.serving(trusted, now) if name == authorities.SERVING else trusted[-1]) if trusted else None
            )
            for each in found:
                state = "active" if each == active else "trusted" if each in trusted else "ended"
                rows.append(
                    {
                        "authority": name if each.number == 1 else f"{name}-{each.number}",
                        "for": purpose,
                        "now": state,
                        "ends": durations.rfc3339(datetime.fromtimestamp(each.ends, UTC)),
                        "fingerprint": certificates.fingerprint(each.authority.certificate),
                    }
                )
    except SettingsError as error:
        raise Failure(str(error)) from error
    return rows
