"""The one error tree of the API: what a handler raises and a client receives as a `meta/v1 Status`.

    ApiError            any refusal, with code and reason
      built by the functions below: bad_request 400, unauthorized 401, forbidden 403, not_found 404,
      method_not_allowed 405, not_acceptable 406, already_exists 409, conflict 409, expired 410, too_large 413,
      unsupported_media_type 415, invalid 422, too_many_requests 429, internal 500, unavailable 503

Reasons and wording: k8s.io/apimachinery/pkg/api/errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onepass.api.meta import JSON, Object, Resource

# So that a small request with a great many mistakes gets no great answer.
_MESSAGE = 8192  # characters
_CAUSES = 64
# A real server tells details of these though it has none, and kubectl reads those of a 404 without asking for them.
_DETAILED = frozenset({403, 404, 405, 406, 415})


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that is wrong: `reason` is a CauseType such as FieldValueInvalid, `field` a JSON path."""

    reason: str
    message: str
    field: str


class ApiError(Exception):
    """A refusal that the client is meant to read."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        resource: Resource | None = None,
        name: str = "",
        causes: Sequence[Cause] = (),
        retry_after: int | None = None,
        continue_token: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message if len(message) <= _MESSAGE else f"{message[:_MESSAGE]}..."
        self.resource = resource
        self.name = name
        self.causes = tuple(causes[:_CAUSES])
        self.retry_after = retry_after
        self.continue_token = continue_token  # from which an expired list may go on, at the cost of its consistency

    def status(self) -> Object:
        """The `meta/v1 Status` object that goes to the client."""
        details: dict[str, JSON] = {}
        if self.name:
            details["name"] = self.name
        if self.resource is not None:
            if self.resource.group:
                details["group"] = self.resource.group
            # Real servers put the kind into details of 422 and the plural into all others.
            details["kind"] = self.resource.kind if self.code == 422 else self.resource.plural
        if self.causes:
            details["causes"] = [_told(cause) for cause in self.causes]
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if details or self.code in _DETAILED:
            status["details"] = details
        return status


def _told(cause: Cause) -> Object:
    told: Object = {"reason": cause.reason, "message": cause.message}
    return {**told, "field": cause.field} if cause.field else told


def _qualified(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unreadable(resource: Resource, why: str) -> ApiError:
    """What is sent is no object of this kind."""
    kind = resource.kind
    return bad_request(f'{kind} in version "{resource.version}" cannot be handled as a {kind}: {why}')


def unauthorized(message: str = "Unauthorized") -> ApiError:
    return ApiError(401, "Unauthorized", message)


def forbidden(message: str, resource: Resource | None = None, name: str = "") -> ApiError:
    return ApiError(403, "Forbidden", message, resource=resource, name=name)


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{_qualified(resource)} "{name}" not found', resource=resource, name=name)


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed(message: str = "the server does not allow this method on the requested resource") -> ApiError:
    return ApiError(405, "MethodNotAllowed", message)


def not_acceptable(offered: Sequence[str]) -> ApiError:
    return ApiError(406, "NotAcceptable", f"only the following media types are accepted: {', '.join(offered)}")


def already_exists(resource: Resource, name: str) -> ApiError:
    return ApiError(
        409, "AlreadyExists", f'{_qualified(resource)} "{name}" already exists', resource=resource, name=name
    )


def conflict(resource: Resource, name: str, message: str = "") -> ApiError:
    why = message or "the object has been modified; please apply your changes to the latest version and try again"
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {_qualified(resource)} "{name}": {why}',
        resource=resource,
        name=name,
    )


def apply_conflict(message: str, causes: Sequence[Cause]) -> ApiError:
    return ApiError(409, "Conflict", message, causes=causes)


def expired(message: str, continue_token: str = "") -> ApiError:
    return ApiError(410, "Expired", message, continue_token=continue_token)


def too_large(message: str) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", message)


def unsupported_media_type(offered: Sequence[str]) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(offered)}",
    )


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    told = [f"{c.field}: {c.message}" if c.field else c.message for c in causes[:_CAUSES]]
    if len(causes) > _CAUSES:
        told.append(f"and {len(causes) - _CAUSES} more")
    told_all = told[0] if len(told) == 1 else "[" + ", ".join(told) + "]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return ApiError(
        422, "Invalid", f'{kind} "{name}" is invalid: {told_all}', resource=resource, name=name, causes=causes
    )


def invalid_options(kind: str, causes: Sequence[Cause]) -> ApiError:
    """The refusal of query parameters or of a body of options; `kind` such as ListOptions."""
    return invalid(Resource("meta.k8s.io", "v1", kind, "", "", False), "", causes)


def too_many_requests(message: str, retry_after: int) -> ApiError:
    return ApiError(429, "TooManyRequests", message, retry_after=retry_after)


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}")


def unavailable(message: str, retry_after: int | None = None) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message, retry_after=retry_after)
