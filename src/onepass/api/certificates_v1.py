"""`certificates.k8s.io/v1`: requests for client certificates."""

from typing import Literal

from pydantic import Field

from onepass.api import objectmeta
from onepass.api.objectmeta import Model, ObjectMeta, Time


class CertificateSigningRequestSpec(Model):
    """The request, and who made it. It cannot be changed."""

    request: str = Field(description="PKCS#10 request, PEM in base64.", json_schema_extra=objectmeta.BYTES)
    signer_name: str = Field(description="Who is to sign: kubernetes.io/kube-apiserver-client.")
    expiration_seconds: int | None = Field(
        None, description="Wanted lifetime of the certificate, at least 600; the signer may give a shorter one."
    )
    usages: list[str] | None = Field(
        None,
        description="Wanted key usages: client auth, and of digital signature and key encipherment what the key needs.",
    )
    username: str | None = Field(None, description="Who made the request. Set by the server.")
    uid: str | None = Field(None, description="UID of who made the request. Set by the server.")
    groups: list[str] | None = Field(None, description="Groups of who made the request. Set by the server.")
    extra: dict[str, list[str]] | None = Field(None, description="More on who made it. Set by the server.")


class CertificateSigningRequestCondition(Model):
    """A decision on the request, or on the certificate."""

    type: str = Field(description="Approved, Denied, Failed, or Revoked once a certificate is taken back.")
    status: Literal["True", "False", "Unknown"] = Field(
        "True", description="True; Approved, Denied and Failed cannot be otherwise."
    )
    reason: str | None = Field(None, description="Why, as one CamelCase word for programs.")
    message: str | None = Field(None, description="Why, as a sentence for people.")
    last_update_time: Time | None = Field(None, description="When the condition was last set.")
    last_transition_time: Time | None = Field(None, description="When its status last changed.")


class CertificateSigningRequestStatus(Model):
    """The decisions, and the certificate."""

    conditions: list[CertificateSigningRequestCondition] | None = Field(
        None, description="Decisions, written through /approval.", json_schema_extra=objectmeta.CONDITIONS
    )
    certificate: str | None = Field(
        None, description="The certificate, PEM in base64.", json_schema_extra=objectmeta.BYTES
    )


class CertificateSigningRequest(Model):
    """Asks for a client certificate: an administrator approves, and the gateway signs."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    spec: CertificateSigningRequestSpec = Field(description="The request, and who made it.")
    status: CertificateSigningRequestStatus | None = Field(None, description="The decisions, and the certificate.")
