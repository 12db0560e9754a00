"""`onepass credential`: what kubectl calls for a credential, as the kubeconfig of `onepass login` tells it to.

client.authentication.k8s.io/v1, https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
Standard output carries the ExecCredential and nothing else; people are spoken to on standard error.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli.failure import Failure

if TYPE_CHECKING:
    from onepass.cli import oidc
    from onepass.cli.oidc import Tokens

API_VERSION = "client.authentication.k8s.io/v1"

app = typer.Typer(no_args_is_help=True, help="What kubectl calls for a credential; `onepass login` sets it up.")

IssuerUrl = Annotated[str, typer.Option(help="The URL of the OpenID Connect provider.", show_default=False)]
ClientId = Annotated[str, typer.Option(help="The client ID there.", show_default=False)]
IssuerCa = Annotated[
    Path | None, typer.Option(help="The provider's authority (PEM). Default: the system's.", show_default=False)
]
Scope = Annotated[
    list[str] | None, typer.Option(help="A scope to ask for beside openid; repeatable.", show_default=False)
]
Device = Annotated[bool, typer.Option("--device", help="Sign in on another device: for machines without a browser.")]
RedirectPort = Annotated[
    int, typer.Option(min=0, max=65535, help="The port of 127.0.0.1 that the browser comes back to. Default: any.")
]


@app.command("oidc")
def by_oidc(
    issuer_url: IssuerUrl,
    client_id: ClientId,
    issuer_ca: IssuerCa = None,
    scope: Scope = None,
    device: Device = False,
    redirect_port: RedirectPort = 0,
) -> None:
    """Print an ID token as an ExecCredential: the one that is kept, a refreshed one, or one of a new sign-in.

    [bold]Example[/]

    onepass credential oidc --issuer-url https://login.example.com --client-id onepass
    """
    from onepass.cli import oidc

    asked = _asked()
    settings = oidc.Settings(issuer_url, client_id, tuple(scope or ()), issuer_ca, redirect_port)
    tokens = oidc_tokens(settings, device=device, interactive=asked is None or asked)
    _print({"token": tokens.id_token, "expirationTimestamp": _stamp(tokens.expires)})


@app.command("certificate")
def by_certificate(
    server: Annotated[str, typer.Option(help="The gateway's URL.", show_default=False)],
    user: Annotated[str, typer.Option(help="The user.", show_default=False)],
) -> None:
    """Print a client certificate as an ExecCredential, renewed when half of its life is over.

    The key was made on this machine and never leaves it.

    [bold]Example[/]

    onepass credential certificate --server https://gateway.example.com:6443 --user alice
    """
    from onepass.cli import certificatelogin

    kept = certificatelogin.current(server, user)
    _print(
        {
            "clientCertificateData": kept.certificate,
            "clientKeyData": kept.private_key,
            "expirationTimestamp": _stamp(kept.expires),
        }
    )


def oidc_tokens(settings: "oidc.Settings", *, device: bool, interactive: bool, anew: bool = False) -> "Tokens":
    """Tokens that are good for a while, by the least effort; `anew` signs in whatever is kept. Raises Failure."""
    from onepass.cli import credentialcache, oidc

    slot = credentialcache.Slot.of(
        credentialcache.folder(), "oidc", settings.issuer, settings.client_id, *sorted(settings.scopes)
    )
    with slot.locked(), oidc.Provider(settings) as provider:
        kept = None if anew else oidc.Tokens.of(slot.read())
        if kept and kept.is_good(time.time()):
            return kept
        found = _refreshed(provider, kept) if kept else None
        if found is None:
            if not interactive:
                raise Failure(
                    f"your sign-in at {settings.issuer} has ended",
                    "sign in again: onepass login, or run this command in a terminal",
                )
            found = signed_in(provider, device=device)
        slot.write(found.plain())
        return found


def _refreshed(provider: "oidc.Provider", kept: "Tokens") -> "Tokens | None":
    from onepass.cli import oidc

    try:
        return provider.refreshed(kept)
    except oidc.Rejected:
        return None


def signed_in(provider: "oidc.Provider", *, device: bool) -> "Tokens":
    """By a person, who reads on standard error what to do."""
    import webbrowser

    from onepass.cli import output

    def told(url: str, opened: bool) -> None:
        output.note(
            "Sign in with the browser that has opened, or at" if opened else "To sign in, open this in a browser:"
        )
        _line(url)
        if not opened:
            output.note("On a machine without a browser: --device")

    def shown(url: str, code: str, direct: str) -> None:
        output.note("To sign in, open this in a browser on any device:")
        _line(direct or url)
        output.note(
            f"and see that it shows the code [bold]{output.safe(code)}[/]"
            if direct
            else f"and enter {output.safe(code)}"
        )

    return provider.on_device(shown) if device else provider.in_browser(told, webbrowser.open)


def _line(url: str) -> None:
    """Whole, on a line of its own, so that it can be copied."""
    sys.stderr.write("  " + "".join(c for c in url if c.isprintable()) + "\n")
    sys.stderr.flush()


def _asked(environment: Mapping[str, str] = os.environ) -> bool | None:
    """Whether whoever called as a plugin lets us speak to a person; None when nobody did. Raises Failure."""
    text = environment.get("KUBERNETES_EXEC_INFO", "")
    if not text:
        return None
    try:
        info = json.loads(text)
        version, interactive = info["apiVersion"], info["spec"].get("interactive", False)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Failure("KUBERNETES_EXEC_INFO is not an ExecCredential", "kubectl sets it; leave it alone") from error
    if version != API_VERSION:
        raise Failure(f"kubectl asks for {version}", f"this speaks {API_VERSION}: write that into the kubeconfig")
    return interactive is True


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print(status: Mapping[str, str]) -> None:
    credential = {"apiVersion": API_VERSION, "kind": "ExecCredential", "status": dict(status)}
    sys.stdout.write(json.dumps(credential) + "\n")
