"""`onepass up`: run a gateway in the foreground."""

import os
from pathlib import Path
from typing import Annotated

import typer

from onepass.cli.failure import Failure
from onepass.runtime import settings


def up(
    ctx: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where everything is kept: database, certificates, sockets, logs. Default: .onepass.",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[str, typer.Option(help="The address and port of the gateway.")] = settings.DEFAULT_LISTEN,
    storage: Annotated[
        str,
        typer.Option(
            help="The database, as sqlite:///PATH, or for several replicas etcd://HOST:PORT,HOST:PORT/PREFIX, and "
            "etcds:// with TLS. Default: onepass.db in the data directory.",
            show_default=False,
        ),
    ] = "",
    etcd_cafile: Annotated[
        Path | None,
        typer.Option(help="The authority (PEM) of etcd. Default: the system's.", show_default=False),
    ] = None,
    etcd_certfile: Annotated[
        Path | None,
        typer.Option(help="The client certificate (PEM) for etcd. Read again when it connects.", show_default=False),
    ] = None,
    etcd_keyfile: Annotated[Path | None, typer.Option(help="The key of that.", show_default=False)] = None,
    etcd_user: Annotated[str, typer.Option(help="A user of etcd.", show_default=False)] = "",
    etcd_password_file: Annotated[
        Path | None, typer.Option(help="The file with that user's password.", show_default=False)
    ] = None,
    etcd_compaction_interval: Annotated[
        str, typer.Option(help="How much of its history etcd keeps; 0 leaves that to etcd.")
    ] = "5m",
    sandbox: Annotated[
        int, typer.Option(min=0, max=16, help="How many sandbox member clusters to run beside it, on loopback only.")
    ] = 0,
    audit_log_path: Annotated[
        str,
        typer.Option(
            help="The audit log, one JSON line a request; - is standard output. Default: audit.log in the data "
            "directory.",
            show_default=False,
        ),
    ] = "",
    audit_log_maxsize: Annotated[int, typer.Option(help="Megabytes at which the audit log is set aside.")] = 100,
    audit_log_maxbackup: Annotated[
        int, typer.Option(help="How many audit logs that were set aside are kept; 0 keeps all.")
    ] = 10,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A further DNS name or IP address for the gateway's certificate; repeatable."),
    ] = None,
    allow_endpoint_cidr: Annotated[
        list[str] | None,
        typer.Option(
            help="A network in which members may be, such as 10.20.0.0/16; repeatable. Default: any. Never link-local, "
            "metadata and this machine's own addresses.",
            show_default=False,
        ),
    ] = None,
    max_memory: Annotated[
        int,
        typer.Option(
            help="MiB that Envoy may use before it turns clients away. Default: 65 % of what this machine or container "
            "has.",
            show_default=False,
        ),
    ] = 0,
    client_ca_file: Annotated[
        Path | None,
        typer.Option(
            help="Authorities (PEM) whose client certificates are taken beside the gateway's own: CN is the user, O a "
            "group. Read again when it changes.",
            show_default=False,
        ),
    ] = None,
    client_crl_file: Annotated[
        Path | None,
        typer.Option(
            help="Revocation lists (PEM) of those authorities. Read again when it changes.", show_default=False
        ),
    ] = None,
    service_account_issuer: Annotated[
        list[str] | None,
        typer.Option(
            help="The URL by which service-account tokens name who issued them. Given again, further ones that are "
            f"taken too, as the one before a change. Default: {settings.DEFAULT_ISSUER}.",
            show_default=False,
        ),
    ] = None,
    service_account_jwks_uri: Annotated[
        str,
        typer.Option(
            help="Where others find the keys of those tokens, for the discovery document. Default: "
            "ISSUER/openid/v1/jwks.",
            show_default=False,
        ),
    ] = "",
    exec_plugins: Annotated[
        Path | None,
        typer.Option(
            help="A list (YAML) of programs by which members may get their credentials, such as aws eks get-token. "
            "Default: none.",
            show_default=False,
        ),
    ] = None,
    seal_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the key comes from that members' credentials are sealed with: file:PATH, env:NAME, or "
            "unix:///PATH of a KMS v2 plugin. Repeatable: the first one seals, all of them open. Default: a file in "
            "the data directory, made by the first start.",
            show_default=False,
        ),
    ] = None,
    kms_timeout: Annotated[float, typer.Option(help="Seconds that a call of a KMS plugin may take.")] = 3.0,
    oidc_config: Annotated[
        Path | None,
        typer.Option(
            help="OpenID Connect providers whose tokens are taken, as Kubernetes' AuthenticationConfiguration.",
            show_default=False,
        ),
    ] = None,
    oidc_issuer_url: Annotated[
        str, typer.Option(help="Instead of a file: the URL of one OpenID Connect provider.", show_default=False)
    ] = "",
    oidc_client_id: Annotated[
        str, typer.Option(help="The client ID that its tokens must be made for.", show_default=False)
    ] = "",
    oidc_username_claim: Annotated[str, typer.Option(help="The claim that names the user.")] = "sub",
    oidc_username_prefix: Annotated[
        str | None,
        typer.Option(
            help="Put before the user; - for nothing. Default: the issuer's URL and #, but nothing before an email.",
            show_default=False,
        ),
    ] = None,
    oidc_groups_claim: Annotated[str, typer.Option(help="The claim that names the groups.", show_default=False)] = "",
    oidc_groups_prefix: Annotated[str, typer.Option(help="Put before each group.", show_default=False)] = "",
    oidc_ca_file: Annotated[
        Path | None,
        typer.Option(help="The authority (PEM) of the provider. Default: the system's.", show_default=False),
    ] = None,
    extension: Annotated[
        bool,
        typer.Option(
            "--extension", help="Serve the aggregator of a host cluster as well: the host's users and its RBAC."
        ),
    ] = False,
    extension_listen: Annotated[
        str, typer.Option(help="The address and port for the aggregator.")
    ] = settings.DEFAULT_EXTENSION_LISTEN,
    extension_passes: Annotated[
        str,
        typer.Option(
            help="ignore: the host's RBAC alone decides who enters a member; narrow: passes must allow the request too."
        ),
    ] = "ignore",
    authentication_kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Leads to the host cluster, whose extension-apiserver-authentication names the front proxy. "
            "Default: the service account of the pod.",
            show_default=False,
        ),
    ] = None,
    requestheader_client_ca_file: Annotated[
        Path | None,
        typer.Option(
            help="Instead of asking the host: the authorities (PEM) of its front proxy. Read again when it changes.",
            show_default=False,
        ),
    ] = None,
    requestheader_allowed_names: Annotated[
        str,
        typer.Option(help="Common names of the front proxy, comma-separated. Default: any.", show_default=False),
    ] = "",
    requestheader_username_headers: Annotated[
        str, typer.Option(help="Headers by which it names the user.")
    ] = "X-Remote-User",
    requestheader_group_headers: Annotated[
        str, typer.Option(help="Headers by which it names the groups.")
    ] = "X-Remote-Group",
    requestheader_uid_headers: Annotated[
        str, typer.Option(help="Headers by which it names the user's uid.")
    ] = "X-Remote-Uid",
    requestheader_extra_headers_prefix: Annotated[
        str, typer.Option(help="What headers with more about the user begin with.")
    ] = "X-Remote-Extra-",
    oidc_refresh: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds between two looks at the keys of a provider.")
    ] = 60,
) -> None:
    """Run a gateway in the foreground, until Ctrl-C.

    The first start makes certificates and an administrator's kubeconfig, DIR/admin.kubeconfig, with a context for the
    gateway and one for each member cluster; later starts find them again.
    A line that begins "onepass is ready: https://" tells scripts that requests are answered.

    [bold]Examples[/]

    onepass up --sandbox 2
    onepass up --data-dir /var/lib/onepass --listen 0.0.0.0:6443 --name gateway.example.com
    onepass up --storage etcds://etcd-0:2379,etcd-1:2379 --etcd-cafile ca.crt --seal-key file:/etc/onepass/seal.key
    onepass up --extension --extension-listen 0.0.0.0:6444 --authentication-kubeconfig host.kubeconfig
    onepass up --oidc-issuer-url https://login.example.com --oidc-client-id onepass --oidc-groups-claim groups
    """
    # gRPC would otherwise tell of every child process; it is asked before it is loaded.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    from onepass.cli import options
    from onepass.runtime import authnconfig, datadir, pluginrunner, serve

    def issuers() -> tuple[settings.Issuer, ...]:
        if oidc_config is not None:
            if oidc_issuer_url:
                raise settings.SettingsError("give --oidc-config or --oidc-issuer-url, not both")
            return authnconfig.read(oidc_config)
        if not oidc_issuer_url:
            if oidc_client_id or oidc_groups_claim or oidc_ca_file:
                raise settings.SettingsError("--oidc-issuer-url is missing: without it no provider's tokens are taken")
            return ()
        return (
            authnconfig.from_flags(
                oidc_issuer_url,
                oidc_client_id,
                oidc_username_claim,
                oidc_username_prefix,
                oidc_groups_claim,
                oidc_groups_prefix,
                datadir.read(oidc_ca_file, "--oidc-ca-file ") if oidc_ca_file else b"",
            ),
        )

    def host() -> settings.Extension | None:
        if not extension:
            if requestheader_client_ca_file or authentication_kubeconfig:
                raise settings.SettingsError("the front proxy of a host cluster is of use with --extension only")
            return None
        return settings.Extension(
            listen=settings.Listen.parse(extension_listen, "--extension-listen"),
            passes=extension_passes,
            client_ca_file=requestheader_client_ca_file,
            allowed_names=_listed(requestheader_allowed_names),
            username_headers=_listed(requestheader_username_headers),
            group_headers=_listed(requestheader_group_headers),
            uid_headers=_listed(requestheader_uid_headers),
            extra_headers_prefix=_listed(requestheader_extra_headers_prefix),
            kubeconfig=authentication_kubeconfig,
        )

    try:
        chosen = settings.Settings(
            data_dir=options.data_folder(ctx, data_dir),
            listen=settings.Listen.parse(listen),
            storage=storage,
            etcd=settings.EtcdAccess(
                etcd_cafile,
                etcd_certfile,
                etcd_keyfile,
                etcd_user,
                etcd_password_file,
                _seconds(etcd_compaction_interval, "--etcd-compaction-interval"),
            ),
            sandbox=sandbox,
            audit=settings.Audit(audit_log_path, audit_log_maxsize, audit_log_maxbackup),
            names=tuple(name or ()),
            allow_endpoint_cidr=tuple(allow_endpoint_cidr or ()),
            max_memory=max_memory << 20,
            issuers=issuers(),
            keys_refresh=oidc_refresh,
            client_ca_file=client_ca_file,
            client_crl_file=client_crl_file,
            exec_plugins=pluginrunner.read(exec_plugins) if exec_plugins else (),
            accounts=settings.ServiceAccounts(
                tuple(service_account_issuer or (settings.DEFAULT_ISSUER,)), service_account_jwks_uri
            ),
            extension=host(),
            seal_keys=tuple(map(settings.SealKey.parse, seal_key or ())),
            kms_timeout=kms_timeout,
        )
        serve.up(chosen)
    except settings.SettingsError as error:
        raise Failure(str(error)) from error


def _seconds(text: str, option: str) -> int:
    from onepass.cli import durations

    return 0 if text == "0" else durations.parse(text, option)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))
