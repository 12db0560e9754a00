"""`onepass login`: sign in, and write a kubeconfig whose credential renews itself."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onepass.cli import output
from onepass.cli.credentialgroup import API_VERSION, ClientId, Device, IssuerCa, IssuerUrl, RedirectPort, Scope
from onepass.cli.failure import Failure
from onepass.cli.output import safe

if TYPE_CHECKING:
    from onepass.api.meta import Object
    from onepass.cli.client import Gateway
    from onepass.cli.oidc import Settings

_HINT = "OnePass is not installed here, or not on the PATH: see its documentation, docs/guides/login.md"


def login(
    server: Annotated[str, typer.Argument(help="The gateway's URL: https://gateway.example.com:6443.")],
    issuer_url: IssuerUrl = "",
    client_id: ClientId = "",
    certificate_authority: Annotated[
        Path | None,
        typer.Option(help="The gateway's authority (PEM). Default: the system's.", show_default=False),
    ] = None,
    issuer_ca: IssuerCa = None,
    scope: Scope = None,
    device: Device = False,
    redirect_port: RedirectPort = 0,
    certificate: Annotated[
        bool,
        typer.Option(
            "--certificate",
            help="Get a short-lived certificate for a key that is made on this machine, and use that from then on.",
        ),
    ] = False,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The kubeconfig to write into. Default: as kubectl, ~/.kube/config.",
            show_default=False,
        ),
    ] = None,
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            help="A cluster to write a context for; repeatable. Default: all that you may reach.", show_default=False
        ),
    ] = None,
) -> None:
    """Sign in at an OpenID Connect provider and write contexts for every cluster that you may reach.

    kubectl asks onepass for the credential from then on, which renews it while the provider lets it, and asks you to
    sign in again when not. On a machine without a browser, --device shows a code to enter elsewhere.

    [bold]Examples[/]

    onepass login https://gateway.example.com:6443 --issuer-url https://login.example.com --client-id onepass
    onepass login gateway.example.com:6443 --issuer-url https://login.example.com --client-id onepass --device
    onepass login gateway.example.com:6443 --issuer-url https://login.example.com --client-id onepass --certificate
    """
    from onepass.cli import client, credentialgroup, kubeconfigfile, oidc

    url = _server(server)
    if not issuer_url or not client_id:
        raise Failure("say where to sign in: --issuer-url URL --client-id ID", "whoever runs the gateway knows both")
    ca = _read(certificate_authority) if certificate_authority else b""
    settings = oidc.Settings(
        issuer_url, client_id, tuple(scope or ()), issuer_ca.absolute() if issuer_ca else None, redirect_port
    )
    path = output_file.expanduser() if output_file else kubeconfigfile.default()
    tokens = credentialgroup.oidc_tokens(settings, device=device, interactive=True, anew=True)
    with client.by_token(url, ca, tokens.id_token) as gateway:
        who, groups = _who(gateway, settings)
        if certificate:
            from onepass.cli import certificatelogin

            plugin = ["credential", "certificate", "--server", url, "--user", who]
            with output.waiting("waiting for the certificate"):
                certificatelogin.first(gateway, url, ca, who, groups)
        else:
            plugin = _oidc_plugin(settings, device)
        clusters = sorted(set(cluster)) if cluster else _clusters(gateway)
    name = f"{who}@{url.removeprefix('https://')}"
    merged = kubeconfigfile.merge(path, url, ca, _user(plugin), name, clusters)
    output.say(f"You are [bold]{safe(who)}[/] at {safe(url)}.")
    if clusters:
        output.say(f"Written to [bold]{safe(path)}[/]: the contexts {safe(', '.join(merged.contexts))}.")
        output.say(
            f"The current one is {safe(merged.current)}. Try: kubectl --context {safe(merged.contexts[-1])} get pods"
        )
    else:
        output.say(f"Written to [bold]{safe(path)}[/]: the context {safe(merged.contexts[0])}.")
        output.say("[yellow]No cluster is open to you yet.[/] Ask for a pass, and run this again.")


def _who(gateway: "Gateway", settings: "Settings") -> "tuple[str, tuple[str, ...]]":
    """Who the gateway says that we are, and the groups that a certificate could carry. Raises Failure."""
    from onepass.api import meta
    from onepass.cli.failure import Refused

    review: Object = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = gateway.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    except Refused as error:
        if error.code != 401:
            raise
        raise Failure(
            f"the gateway at {gateway.url} does not take the token that {settings.issuer} gave: {error.what}",
            "whoever runs the gateway names the provider and the client ID to it: docs/guides/login.md",
        ) from error
    told = meta.section(meta.section(answer, "status"), "userInfo")
    listed = told.get("groups")
    groups = [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
    return meta.text(told, "username"), tuple(each for each in groups if not each.startswith("system:"))


def _clusters(gateway: "Gateway") -> list[str]:
    from onepass.api import meta

    review: Object = {"apiVersion": "access.karpor.io/v1beta1", "kind": "SelfClusterReview"}
    answer = gateway.create("/apis/access.karpor.io/v1beta1/selfclusterreviews", review)
    listed = meta.section(answer, "status").get("clusters")
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []


def _oidc_plugin(settings: "Settings", device: bool) -> list[str]:
    plugin = ["credential", "oidc", "--issuer-url", settings.issuer, "--client-id", settings.client_id]
    if settings.ca_file:
        plugin += ["--issuer-ca", str(settings.ca_file)]
    for each in settings.scopes:
        plugin += ["--scope", each]
    if settings.redirect_port:
        plugin += ["--redirect-port", str(settings.redirect_port)]
    return [*plugin, "--device"] if device else plugin


def _user(plugin: list[str]) -> "Object":
    """The `exec` user of a kubeconfig. kubectl looks for a bare name on the PATH."""
    command = "onepass" if shutil.which("onepass") else str(Path(sys.argv[0]).absolute())
    return {
        "exec": {
            "apiVersion": API_VERSION,
            "command": command,
            "args": [*plugin],
            "interactiveMode": "IfAvailable",
            "provideClusterInfo": False,
            "installHint": _HINT,
        }
    }


def _server(given: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(given if "://" in given else f"https://{given}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise Failure(f"{given} is not a gateway's URL", "write it as https://gateway.example.com:6443")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}:{port}" if port else f"https://{host}"


def _read(path: Path) -> bytes:
    from onepass.pki import certificates

    try:
        content = path.expanduser().read_bytes()
        certificates.chain(content)
    except OSError as error:
        raise Failure(f"{path} cannot be read ({error.strerror})") from error
    except certificates.CertificateRefused as error:
        raise Failure(f"{path} {error}") from error
    return content
