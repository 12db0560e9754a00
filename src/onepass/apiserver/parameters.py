"""The query parameters of a request, read as kube-apiserver reads them (k8s.io/apimachinery/pkg/apis/meta/v1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

from starlette.types import Scope

from onepass.access.identity import Identity
from onepass.api import errors, meta
from onepass.api.meta import JSON, Object
from onepass.registry.store import Write
from onepass.registry.strategy import Actor

Query = Mapping[str, str]

_VALIDATIONS = ("Strict", "Warn", "Ignore")
_PROPAGATIONS = ("Orphan", "Background", "Foreground")
_MANAGER_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a deletion asks for beside the object (meta/v1 DeleteOptions); grace in seconds, None for the default."""

    uid: str = ""
    resource_version: str = ""
    grace: int | None = None


def query(scope: Scope) -> Query:
    """The parameters; of one that is given twice, the first counts, as in Go."""
    raw: bytes = scope["query_string"]
    return dict(reversed(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)))


def flag(value: str | None) -> bool:
    """A boolean parameter: everything but absence, "0" and "false" is true."""
    return value is not None and value.lower() not in ("0", "false")


def number(asked: Query, key: str) -> int:
    """A whole parameter, 0 when it is absent. Raises bad_request."""
    value = asked.get(key) or "0"
    if not value.removeprefix("-").isdecimal() or not value.isascii() or len(value) > 18:
        raise errors.bad_request(f"{key}: Invalid value: {value[:64]!r}: must be a whole number")
    return int(value)


def write(asked: Query, identity: Identity, agent: str, now: float, subresource: str = "") -> Write:
    """The options of a create, update, patch or delete. Raises bad_request."""
    manager = asked.get("fieldManager") or agent.partition("/")[0][:_MANAGER_LENGTH]
    if len(manager) > _MANAGER_LENGTH or not manager.isprintable():
        raise errors.bad_request(f"fieldManager: must be printable and at most {_MANAGER_LENGTH} characters long")
    return Write(
        Actor(identity, now, manager),
        dry_run=_dry_run(asked.get("dryRun")),
        field_validation=_validation(asked.get("fieldValidation") or "Warn"),
        subresource=subresource,
    )


def _dry_run(value: JSON) -> bool:
    if value not in (None, "", "All"):
        raise errors.bad_request(f'dryRun: Unsupported value: {value!r}: supported values: "All"')
    return value == "All"


def _validation(value: str) -> Literal["Strict", "Warn", "Ignore"]:
    for known in ("Strict", "Warn", "Ignore"):
        if value == known:
            return known
    raise errors.bad_request(
        f'fieldValidation: Unsupported value: "{value[:64]}": supported values: {_told(_VALIDATIONS)}'
    )


def deletion(asked: Query, body: Object, given: Write) -> tuple[Deletion, Write]:
    """DeleteOptions from the body, or from the query when there is none. Raises bad_request."""
    if body.get("kind", "DeleteOptions") != "DeleteOptions":
        raise errors.bad_request(f"the body of a deletion must be DeleteOptions, not {meta.text(body, 'kind')}")
    propagation = body.get("propagationPolicy") or asked.get("propagationPolicy") or "Background"
    if propagation not in _PROPAGATIONS:
        raise errors.bad_request(f"propagationPolicy: Unsupported value: supported values: {_told(_PROPAGATIONS)}")
    grace = body.get("gracePeriodSeconds")
    if grace is None and "gracePeriodSeconds" in asked:
        grace = number(asked, "gracePeriodSeconds")
    if grace is not None and (isinstance(grace, bool) or not isinstance(grace, int) or grace < 0):
        raise errors.bad_request("gracePeriodSeconds: must be a whole number that is not negative")
    dry = body.get("dryRun")
    dry_run = given.dry_run or any(_dry_run(value) for value in (dry if isinstance(dry, list) else [dry]))
    preconditions = meta.section(body, "preconditions")
    wanted = Deletion(meta.text(preconditions, "uid"), meta.text(preconditions, "resourceVersion"), grace)
    return wanted, Write(given.actor, dry_run, given.field_validation, given.subresource)


def _told(values: tuple[str, ...]) -> str:
    return ", ".join(f'"{value}"' for value in values)
