"""`cluster.karpor.io/v1beta1`: member clusters, field-compatible with Karpor's.

Additive to Karpor: access.{endpoints, serverName, proxyURL, identity}, credential.{fingerprint, renew}, and all of
status but healthy.
"""

from typing import Literal

from pydantic import Field

from onepass.api import objectmeta
from onepass.api.objectmeta import Condition, Model, ObjectMeta


class X509(Model):
    """A client certificate. Write-only: a read shows the fingerprint of the credential instead."""

    model_config = objectmeta.WHOLE

    certificate: str | None = Field(
        None,
        description="Client certificate, PEM in base64, leaf first. Write-only.",
        json_schema_extra=objectmeta.BYTES,
    )
    private_key: str | None = Field(
        None,
        description="Private key of the certificate, PEM in base64. Write-only.",
        json_schema_extra=objectmeta.BYTES,
    )


class ExecEnvVar(Model):
    """An environment variable for a credential program."""

    name: str = Field(description="Name of the variable.")
    value: str = Field("", description="Value of the variable.")


class ExecConfig(Model):
    """A program on the gateway that gets credentials. Refused unless the operator listed it when OnePass started."""

    command: str = Field(description="The program to run.")
    args: list[str] | None = Field(None, description="Its arguments.")
    env: list[ExecEnvVar] | None = Field(None, description="Environment variables beside those of the gateway.")
    api_version: str | None = Field(None, description="Version of the ExecCredential that the program speaks.")
    install_hint: str | None = Field(None, description="What to tell a person when the program is missing.")
    provide_cluster_info: bool = Field(False, description="Whether the program is told about the cluster.")
    interactive_mode: str | None = Field(None, description="Whether the program may read standard input: Never here.")


class ClusterAccessCredential(Model):
    """How the gateway proves itself to the cluster."""

    type: str = Field(
        description="ServiceAccountToken, X509Certificate, or OIDC (through execConfig).",
    )
    service_account_token: str | None = Field(
        None, description="Bearer token, for type ServiceAccountToken. Write-only: a read shows the fingerprint."
    )
    renew: bool | None = Field(
        None,
        description="Get a new token before the stored one ends, by a TokenRequest to the cluster, for type "
        "ServiceAccountToken. The token must be a bound one of a service account that may make tokens for itself.",
    )
    x509: X509 | None = Field(None, description="Client certificate, for type X509Certificate. Write-only.")
    exec_config: ExecConfig | None = Field(None, description="Credential program, for type OIDC.")
    fingerprint: str | None = Field(
        None,
        description="SHA-256 of the stored token or certificate. Set by the server; a write that carries it unchanged "
        "keeps the stored credential.",
    )


class ClusterAccess(Model):
    """How the cluster is reached."""

    endpoint: str = Field(
        description="URL of the cluster's API server: https, with or without a port and a path prefix. "
        "Changing it, endpoints, caBundle, serverName, proxyURL or insecure takes the credential again."
    )
    endpoints: list[str] | None = Field(
        None,
        description="Further URLs of the same API server, such as one for each of its machines: what fails is left, "
        "and requests go to the others. The certificate of each must be for serverName, or without one for the host of "
        "endpoint.",
    )
    ca_bundle: str | None = Field(
        None,
        description="Certificate authorities of the API server, PEM in base64; without it, those of the system.",
        json_schema_extra=objectmeta.BYTES,
    )
    insecure: bool | None = Field(
        None, description="Leave the API server's certificate unverified. Only for trying things out."
    )
    credential: ClusterAccessCredential | None = Field(None, description="How the gateway proves itself.")
    server_name: str | None = Field(
        None, description="Name that the API server's certificate must be for, when it is not the endpoint's host."
    )
    proxy_url: str | None = Field(
        None,
        alias="proxyURL",
        description="URL of an HTTP proxy on the way to the cluster, which is asked by CONNECT: "
        "http://[USER:PASSWORD@]HOST[:PORT], or https://. The password is write-only: a read shows xxxxx in its place, "
        "which, written back, keeps it.",
    )
    identity: Literal["Gateway", "Impersonate"] | None = Field(
        None,
        description="As whom requests reach the cluster: Gateway (the default) with the stored credential alone, "
        "Impersonate as the user, so that the cluster's own rules apply on top.",
    )


class ClusterSpec(Model):
    """What an administrator says of a cluster."""

    provider: str = Field("", description="Who runs the cluster, such as the name of a cloud.")
    access: ClusterAccess = Field(description="Where the cluster is, and how the gateway proves itself to it.")
    description: str | None = Field(None, description="What the cluster is for.")
    display_name: str | None = Field(None, description="Name of the cluster for people.")
    finalized: bool | None = Field(None, description="Whether the registration is complete; kept for Karpor.")


class ClusterStatus(Model):
    """What the gateway sees of a cluster."""

    healthy: bool | None = Field(None, description="Whether the cluster answers requests through the gateway.")
    conditions: list[Condition] | None = Field(
        None,
        description="Reachable (the API server is there, with the right certificate), Authorized (it takes the stored "
        "credential; Unknown when it cannot be asked), Ready (it serves the gateway's requests) and CredentialValid "
        "(the stored credential has not ended).",
        json_schema_extra=objectmeta.CONDITIONS,
    )
    version: str | None = Field(None, description="Kubernetes version of the cluster.")
    latency: str | None = Field(None, description="Time that a small request takes, such as 12ms.")
    nodes: int | None = Field(
        None, description="How many nodes the cluster has; absent when the stored credential may not list them."
    )
    alpn: str | None = Field(None, description="Protocol that the API server chooses: h2 or http/1.1.")


class Cluster(Model):
    """A member cluster, and how the gateway reaches it. clusters/NAME/proxy carries any request to it."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    spec: ClusterSpec = Field(description="How the cluster is reached.")
    status: ClusterStatus | None = Field(None, description="What the gateway sees of it. Kept by the gateway.")
