"""What a credential plugin is asked, and what it answers (client.authentication.k8s.io, ExecCredential).

PluginRefused   the answer is none; the text is the end of a sentence about the program, without anything secret
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

GROUP = "client.authentication.k8s.io"
VERSIONS = (f"{GROUP}/v1", f"{GROUP}/v1beta1")


class PluginRefused(ValueError):
    """The answer is none."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token, or a client certificate and its key in PEM. `ends` in Unix seconds, None when not told."""

    token: str = field(default="", repr=False)
    certificate: str = ""
    private_key: str = field(default="", repr=False)
    ends: float | None = None


def question(version: str, cluster: Mapping[str, object] | None = None, *, interactive: bool = False) -> str:
    """The value of KUBERNETES_EXEC_INFO; `cluster` for a plugin that is to be told of it (provideClusterInfo)."""
    spec: dict[str, object] = {"interactive": interactive}
    if cluster is not None:
        spec["cluster"] = cluster
    return json.dumps({"kind": "ExecCredential", "apiVersion": version, "spec": spec})


def answer(output: bytes, version: str) -> Issued:
    """What the plugin wrote to standard output. Raises PluginRefused."""
    try:
        said = json.loads(output)
    except ValueError:
        raise PluginRefused("did not answer with JSON") from None
    if not isinstance(said, dict) or said.get("kind") != "ExecCredential":
        raise PluginRefused("did not answer with an ExecCredential")
    if said.get("apiVersion") != version:
        raise PluginRefused(f"answered in another version than {version}, which it was asked in")
    status = said.get("status")
    if not isinstance(status, dict):
        raise PluginRefused("answered without a status, so without a credential")
    given = {
        key: value
        for key in ("token", "clientCertificateData", "clientKeyData")
        if isinstance(value := status.get(key), str)
    }
    certificate, private_key = given.get("clientCertificateData", ""), given.get("clientKeyData", "")
    if bool(certificate) != bool(private_key):
        raise PluginRefused("answered with a client certificate or a key alone")
    if not given.get("token") and not certificate:
        raise PluginRefused("answered without a token and without a client certificate")
    return Issued(given.get("token", ""), certificate, private_key, _ends(status.get("expirationTimestamp")))


def _ends(stamp: object) -> float | None:
    if not stamp:
        return None
    try:
        moment = datetime.fromisoformat(str(stamp))
    except ValueError:
        raise PluginRefused("answered with an expirationTimestamp that is none") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
