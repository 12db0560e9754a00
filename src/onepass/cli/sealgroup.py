"""`onepass seal`: the keys that members' credentials are sealed with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli import options, output
from onepass.cli.failure import Failure
from onepass.cli.options import DataDir, Kubeconfig, Output
from onepass.cli.output import Format, safe

if TYPE_CHECKING:
    from onepass.api.meta import Object

_WHERE = "name its data directory with --data-dir, or a --file"

app = typer.Typer(no_args_is_help=True, help="See and renew the keys that members' credentials are sealed with.")


@app.command()
def status(
    ctx: typer.Context, kubeconfig: Kubeconfig = None, data_dir: DataDir = None, format: Output = Format.table
) -> None:
    """Show which keys the gateway has, and how many stored credentials each of them has sealed.

    A key that seals nothing any more is not needed by this database; backups from before still need it.
    The numbers are at most a minute old.

    [bold]Example[/]

    onepass seal status
    """
    with options.gateway(ctx, kubeconfig, data_dir) as gateway:
        code, text = gateway.raw("/metrics")
    if code >= 500:
        raise Failure(f"the gateway cannot tell its metrics now (HTTP {code})", "see how it is: onepass status")
    if code != 200:
        raise Failure(f"the gateway does not tell its metrics (HTTP {code})", "it takes a right to get /metrics")
    rows, waiting, sick = _read(text)
    if format is not Format.table:
        output.items(format, rows)
        return
    columns = ("KEY", "SOURCE", "NOW", "CREDENTIALS")
    fields = ("key", "source", "now", "credentials")
    output.table(columns, [[safe(row[field]) for field in fields] for row in rows])
    if waiting:
        output.note(f"{waiting} credentials are not sealed by the key of now yet.")
    for source in sick:
        output.note(f"[yellow]{safe(source)} is of no use now[/]: the gateway's log says why.")


@app.command()
def generate() -> None:
    """Print a new key, for a file or a secret.

    [bold]Example[/]

    kubectl create secret generic onepass-seal --from-literal=key="$(onepass seal generate)"
    """
    from onepass.pki import sealkeys

    typer.echo(sealkeys.generate())


@app.command()
def rotate(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Option(help="The key file. Default: pki/seal.key in the data directory.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Put a new key at the head of a key file; the ones before stay and still open what they sealed.

    A running gateway takes it within seconds and seals every credential with it. When `onepass seal status` shows no
    credential of an old key any more, take that key's line out of the file.

    [bold]Example[/]

    onepass seal rotate
    """
    import time
    from datetime import UTC, datetime

    from onepass.cli import durations
    from onepass.pki import sealkeys
    from onepass.runtime import datadir

    path = file or options.pki_folder(ctx, data_dir, _WHERE) / "seal.key"
    line = sealkeys.generate()
    made = durations.rfc3339(datetime.fromtimestamp(time.time(), UTC))
    try:
        before = path.read_text() if path.exists() else ""
        if before.strip():
            sealkeys.Keyring.parse(before)
        remark = "" if before.startswith("#") or not before else f"# {sealkeys.name(before.split()[0])}\n"
        datadir.write_private(path, f"# {sealkeys.name(line)}, made {made}\n{line}\n{remark}{before}".encode())
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise Failure(f"{path}: {error}", "mend the file first: nothing was written") from error
    output.say(f"The key {sealkeys.name(line)} in {safe(path)} seals from now on.")
    if before.strip():
        output.say("Those before it still open what they sealed: see when they are done with onepass seal status")


def _read(text: str) -> "tuple[list[Object], int, list[str]]":
    """One row a key, how many credentials wait, and which sources are of no use, from the text of `/metrics`."""
    from prometheus_client.parser import text_string_to_metric_families

    from onepass.runtime import sealmetrics

    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]

    def of(name: str) -> list[tuple[dict[str, str], int]]:
        return [(each.labels, int(each.value)) for each in samples if each.name == name]

    counts = {labels["key"]: count for labels, count in of(sealmetrics.CREDENTIALS)}
    rows: list[Object] = []
    for labels, seals in of(sealmetrics.KEYS):
        now = "seals" if seals else "opens" if counts.get(labels["key"]) else "not needed"
        rows.append(
            {"key": labels["key"], "source": labels["source"], "now": now, "credentials": counts.get(labels["key"], 0)}
        )
    known = {row["key"] for row in rows}
    for key, count in counts.items():
        if key not in known:
            rows.append(
                {"key": key or "(damaged)", "source": "", "now": "missing" if key else "damaged", "credentials": count}
            )
    waiting = sum(count for _, count in of(sealmetrics.WAITING))
    return rows, waiting, [labels["source"] for labels, well in of(sealmetrics.SOURCES) if not well]
