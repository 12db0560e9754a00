"""The file of `--oidc-config`: Kubernetes' structured AuthenticationConfiguration, or the flags for one issuer.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
What needs CEL is refused, rather than passed over.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onepass.pki import certificates
from onepass.runtime import settings
from onepass.runtime.settings import Claim, Issuer, SettingsError

_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")
_LONGEST = 64  # issuers, as in Kubernetes


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Mapping(_Model):
    claim: str = ""
    prefix: str | None = None
    expression: str = ""


class _Mappings(_Model):
    username: _Mapping
    groups: _Mapping = Field(default_factory=_Mapping)
    uid: _Mapping = Field(default_factory=_Mapping)
    extra: list[object] = Field(default_factory=list)


class _Rule(_Model):
    claim: str = ""
    requiredValue: str = ""  # noqa: N815  the name in the file
    expression: str = ""
    message: str = ""


class _Issuer(_Model):
    url: str
    audiences: list[str] = Field(min_length=1)
    discoveryURL: str = ""  # noqa: N815
    certificateAuthority: str = ""  # noqa: N815
    audienceMatchPolicy: str = ""  # noqa: N815


class _Authenticator(_Model):
    issuer: _Issuer
    claimMappings: _Mappings  # noqa: N815
    claimValidationRules: list[_Rule] = Field(default_factory=list)  # noqa: N815
    userValidationRules: list[object] = Field(default_factory=list)  # noqa: N815


class _Configuration(_Model):
    apiVersion: str  # noqa: N815
    kind: str
    jwt: list[_Authenticator] = Field(max_length=_LONGEST)


def read(path: Path) -> tuple[Issuer, ...]:
    """The issuers in a file. Raises SettingsError with the name of the file and of the field that is wrong."""
    try:
        parsed = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = _Configuration.model_validate(parsed)
    except OSError as error:
        raise SettingsError(f"--oidc-config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"--oidc-config {path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(f"--oidc-config {path}: {where or 'the document'}: {first['msg']}") from error
    try:
        return _issuers(config)
    except SettingsError as error:
        raise SettingsError(f"--oidc-config {path}: {error}") from error


def _issuers(config: _Configuration) -> tuple[Issuer, ...]:
    if config.apiVersion not in _VERSIONS or config.kind != "AuthenticationConfiguration":
        raise SettingsError(f"must be an AuthenticationConfiguration of {_VERSIONS[0]}")
    return checked([_issuer(each, f"jwt[{number}]") for number, each in enumerate(config.jwt)])


def from_flags(
    url: str, client_id: str, username: str, username_prefix: str | None, groups: str, groups_prefix: str, ca: bytes
) -> Issuer:
    """One issuer as kube-apiserver's --oidc-* flags describe it: without a prefix the issuer's URL goes before a user,
    unless the claim is `email`; "-" means none."""
    if username_prefix is None:
        username_prefix = "" if username == "email" else f"{url}#"
    prefix = "" if username_prefix == "-" else username_prefix
    group = Claim(groups, groups_prefix) if groups else None
    return checked([Issuer(url, (client_id,), Claim(username, prefix), group, ca=ca)])[0]


def checked(issuers: Sequence[Issuer]) -> tuple[Issuer, ...]:
    """The issuers, once they can be told from each other. Raises SettingsError."""
    seen: set[str] = set()
    for issuer in issuers:
        for url in filter(None, (issuer.url, issuer.discovery_url)):
            if why := settings.why_no_url(url):
                raise SettingsError(f"the issuer's URL {url!r} {why}")
        if issuer.url in seen:
            raise SettingsError(f"the issuer {issuer.url} is given twice")
        if not all(issuer.audiences):
            raise SettingsError(f"the issuer {issuer.url} needs an audience, the client ID that tokens are made for")
        if issuer.ca:
            try:
                certificates.chain(issuer.ca)
            except certificates.CertificateRefused as error:
                raise SettingsError(f"the certificate authority of {issuer.url} {error}") from error
        seen.add(issuer.url)
    return tuple(issuers)


def _issuer(given: _Authenticator, at: str) -> Issuer:
    for field in _unsupported(given):
        raise SettingsError(f"{at}.{field} is not supported: name a claim instead of a CEL expression")
    mappings = given.claimMappings
    if not mappings.username.claim:
        raise SettingsError(f"{at}.claimMappings.username.claim is required")
    for name, mapping in (("username", mappings.username), ("groups", mappings.groups)):
        if mapping.claim and mapping.prefix is None:
            raise SettingsError(f'{at}.claimMappings.{name}.prefix is required; "" means none')
    if given.issuer.audienceMatchPolicy not in ("", "MatchAny"):
        raise SettingsError(f"{at}.issuer.audienceMatchPolicy must be MatchAny")
    if any(not rule.claim for rule in given.claimValidationRules):
        raise SettingsError(f"{at}.claimValidationRules: each needs a claim")
    groups = mappings.groups
    return Issuer(
        url=given.issuer.url,
        audiences=tuple(given.issuer.audiences),
        username=Claim(mappings.username.claim, mappings.username.prefix or ""),
        groups=Claim(groups.claim, groups.prefix or "") if groups.claim else None,
        required=tuple((rule.claim, rule.requiredValue) for rule in given.claimValidationRules),
        ca=given.issuer.certificateAuthority.encode(),
        discovery_url=given.issuer.discoveryURL,
    )


def _unsupported(given: _Authenticator) -> Iterator[str]:
    mappings = given.claimMappings
    for name, mapping in (("username", mappings.username), ("groups", mappings.groups)):
        if mapping.expression:
            yield f"claimMappings.{name}.expression"
    if mappings.uid.claim or mappings.uid.expression:
        yield "claimMappings.uid"
    if mappings.extra:
        yield "claimMappings.extra"
    if given.userValidationRules:
        yield "userValidationRules"
    if any(rule.expression for rule in given.claimValidationRules):
        yield "claimValidationRules.expression"
