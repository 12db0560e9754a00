"""The query parameters of a request, read as kube-apiserver reads them (k8s.io/apimachinery/pkg/apis/meta/v1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

from starlette.types import Scope

from onepass.access.identity import Identity
from onepass.api import errors, meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object
from onepass.registry import causes
from onepass.registry.reads import Asked
from onepass.registry.store import Write
from onepass.registry.strategy import Actor

Query = Mapping[str, str]

_VALIDATIONS = ("", "Ignore", "Strict", "Warn")
_PROPAGATIONS = ("Foreground", "Background", "Orphan")
_MANAGER_LENGTH = 128
_MATCHES = ("Exact", "NotOlderThan")
_FRESH = "NotOlderThan"


@dataclass(frozen=True, slots=True)
class Watching:
    """The options of a watch. `initial` None leaves it to the resourceVersion; `seconds` 0 to the server."""

    resource_version: str
    bookmarks: bool
    initial: bool | None
    seconds: int


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
    value = asked.get(key, "0")
    if not value.removeprefix("-").removeprefix("+").isdecimal() or not value.isascii() or len(value) > 18:
        raise errors.bad_request(f'{key}: parsing "{value[:64]}": invalid syntax')
    return int(value)


def listing(asked: Query) -> Asked:
    """The options of a list (meta/v1 ListOptions). Raises bad_request and invalid."""
    match, version, token = (asked.get(key, "") for key in ("resourceVersionMatch", "resourceVersion", "continue"))
    wrong: list[Cause] = []
    if match:
        forbidden = "resourceVersionMatch is forbidden"
        if not version:
            wrong.append(causes.forbidden("resourceVersionMatch", f"{forbidden} unless resourceVersion is provided"))
        if token:
            wrong.append(causes.forbidden("resourceVersionMatch", f"{forbidden} when continue is provided"))
        if match not in _MATCHES:
            wrong.append(causes.unsupported("resourceVersionMatch", match[:64], (*_MATCHES, "")))
        if match == "Exact" and version == "0":
            told = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            wrong.append(causes.forbidden("resourceVersionMatch", told))
    if "sendInitialEvents" in asked:
        wrong.append(causes.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    _refuse("ListOptions", wrong)
    # A negative limit is none, as a real server has it.
    return Asked(max(number(asked, "limit"), 0), token, version, match)


def watching(asked: Query) -> Watching:
    """The options of a watch (meta/v1 ListOptions). Raises bad_request and invalid."""
    match, version = asked.get("resourceVersionMatch", ""), asked.get("resourceVersion", "")
    initial = flag(asked["sendInitialEvents"]) if "sendInitialEvents" in asked else None
    wrong: list[Cause] = []
    if initial is not None and match != _FRESH:
        told = f"sendInitialEvents requires setting resourceVersionMatch to {_FRESH}"
        wrong.append(causes.forbidden("resourceVersionMatch", told))
    if match:
        if initial is None:
            told = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            wrong.append(causes.forbidden("resourceVersionMatch", told))
        if match != _FRESH:
            wrong.append(causes.unsupported("resourceVersionMatch", match[:64], (_FRESH,)))
        if asked.get("continue"):
            told = "resourceVersionMatch is forbidden when continue is provided"
            wrong.append(causes.forbidden("resourceVersionMatch", told))
    _refuse("ListOptions", wrong)
    return Watching(version, flag(asked.get("allowWatchBookmarks")), initial, max(number(asked, "timeoutSeconds"), 0))


def write(asked: Query, identity: Identity, agent: str, now: float, subresource: str = "", verb: str = "") -> Write:
    """The options of a create, update, patch or delete. Raises invalid."""
    manager = asked.get("fieldManager", "")
    validation = asked.get("fieldValidation", "")
    wrong: list[Cause] = []
    if len(manager.encode()) > _MANAGER_LENGTH:
        wrong.append(causes.too_long("fieldManager", _MANAGER_LENGTH))
    for at, character in enumerate(manager):
        if not character.isprintable():
            told = f"invalid character U+{ord(character):04X} (at position {at})"
            wrong.append(causes.invalid("fieldManager", manager[:_MANAGER_LENGTH], told))
            break
    wrong += _dry_run_causes([asked["dryRun"]] if asked.get("dryRun") else [])
    if validation not in _VALIDATIONS:
        wrong.append(causes.unsupported("fieldValidation", validation[:64], _VALIDATIONS))
    _refuse(f"{verb.capitalize() or 'Update'}Options", wrong)
    return Write(
        Actor(identity, now, manager or _printable(agent.partition("/")[0])[:_MANAGER_LENGTH]),
        dry_run=asked.get("dryRun") == "All",
        field_validation=_validation(validation),
        subresource=subresource,
    )


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def _validation(value: str) -> Literal["Strict", "Warn", "Ignore"]:
    for known in ("Strict", "Ignore"):
        if value == known:
            return known
    return "Warn"


def _dry_run_causes(values: Sequence[JSON]) -> list[Cause]:
    if all(value == "All" for value in values):
        return []
    shown: list[JSON] = [value[:64] if isinstance(value, str) else type(value).__name__ for value in values[:4]]
    return [causes.unsupported("dryRun", shown, ("All",))]


def deletion(asked: Query, body: Object | None, given: Write) -> tuple[Deletion, Write]:
    """DeleteOptions from the body, or from the query when there is none (None). Raises bad_request and invalid."""
    options = _queried(asked) if body is None else body
    if options.get("kind", "DeleteOptions") != "DeleteOptions":
        raise errors.bad_request("decoded object cannot be converted to DeleteOptions")
    _typed(options)
    wrong: list[Cause] = []
    propagation, orphan = options.get("propagationPolicy"), options.get("orphanDependents")
    if propagation is not None and orphan is not None:
        told = "orphanDependents and deletionPropagation cannot be both set"
        wrong.append(causes.invalid("propagationPolicy", propagation, told))
    if propagation is not None and propagation not in _PROPAGATIONS:
        wrong.append(causes.unsupported("propagationPolicy", str(propagation)[:64], (*_PROPAGATIONS, "nil")))
    dry = options.get("dryRun")
    dry_run: list[JSON] = dry if isinstance(dry, list) else []
    wrong += _dry_run_causes(dry_run)
    _refuse("DeleteOptions", wrong)
    grace = options.get("gracePeriodSeconds")
    preconditions = meta.section(options, "preconditions")
    wanted = Deletion(
        meta.text(preconditions, "uid"),
        meta.text(preconditions, "resourceVersion"),
        # A negative period is the shortest that there is.
        None if not isinstance(grace, int) else 1 if grace < 0 else grace,
    )
    dry_asked = given.dry_run or bool(dry_run)
    return wanted, Write(given.actor, dry_asked, given.field_validation, given.subresource)


def _queried(asked: Query) -> Object:
    """DeleteOptions as the query has them; it cannot tell preconditions."""
    found: Object = {}
    if "gracePeriodSeconds" in asked:
        found["gracePeriodSeconds"] = number(asked, "gracePeriodSeconds")
    if "propagationPolicy" in asked:
        found["propagationPolicy"] = asked["propagationPolicy"]
    if "orphanDependents" in asked:
        found["orphanDependents"] = flag(asked["orphanDependents"])
    return found


_FIELDS: Mapping[str, type] = {
    "gracePeriodSeconds": int,
    "preconditions": dict,
    "propagationPolicy": str,
    "orphanDependents": bool,
    "dryRun": list,
}
_PRECONDITIONS: Mapping[str, type] = {"uid": str, "resourceVersion": str}


def _typed(options: Object) -> None:
    """Raises bad_request for a field of another type; null is absence."""
    parts = ((options, _FIELDS, ""), (meta.section(options, "preconditions"), _PRECONDITIONS, "preconditions."))
    for part, fields, prefix in parts:
        for key, wanted in fields.items():
            value = part.get(key)
            if value is None:
                continue
            if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
                raise errors.bad_request(
                    f'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: '
                    f"json: cannot unmarshal {type(value).__name__} into field {prefix}{key}"
                )


def _refuse(kind: str, wrong: Sequence[Cause]) -> None:
    if wrong:
        raise errors.invalid_options(kind, wrong)
