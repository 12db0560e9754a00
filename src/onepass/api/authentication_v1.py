"""`authentication.k8s.io/v1`: who am I, whose token is this, and tokens for service accounts."""

from pydantic import Field

from onepass.api import objectmeta
from onepass.api.objectmeta import Model, ObjectMeta, Time

_METADATA = Field(default_factory=ObjectMeta, description="Standard object metadata.")


class UserInfo(Model):
    """A user as the server knows it."""

    username: str | None = Field(None, description="Name of the user.")
    uid: str | None = Field(None, description="Identifies the user in time.")
    groups: list[str] | None = Field(None, description="Groups of the user.")
    extra: dict[str, list[str]] | None = Field(None, description="More that the authenticator told.")


class SelfSubjectReviewStatus(Model):
    """Who asks."""

    user_info: UserInfo | None = Field(None, description="The user who asks.")


class SelfSubjectReview(Model):
    """Tells who asks, as `kubectl auth whoami` does."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    status: SelfSubjectReviewStatus | None = Field(None, description="The answer.")


class TokenReviewSpec(Model):
    """The token in question."""

    token: str = Field("", description="The bearer token.")
    audiences: list[str] | None = Field(
        None, description="Audiences of who asks; without them, the audience of this server."
    )


class TokenReviewStatus(Model):
    """Whose token it is."""

    authenticated: bool | None = Field(None, description="Whether the token is good.")
    user: UserInfo | None = Field(None, description="The user of the token.")
    audiences: list[str] | None = Field(None, description="Audiences that the token and who asks have in common.")
    error: str | None = Field(None, description="Why the token could not be checked.")


class TokenReview(Model):
    """Tells whose token it is."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    spec: TokenReviewSpec = Field(description="The token, and the audiences that it has to be good for.")
    status: TokenReviewStatus | None = Field(None, description="The answer.")


class BoundObjectReference(Model):
    """An object that a token lives and dies with."""

    kind: str | None = Field(None, description="Kind of the object: Pod or Secret.")
    api_version: str | None = Field(None, description="API version of the object.")
    name: str | None = Field(None, description="Name of the object.")
    uid: str | None = Field(None, description="UID of the object.")


class TokenRequestSpec(Model):
    """The token that is asked for."""

    audiences: list[str] | None = Field(None, description="Who is to take the token; without it, this server.")
    expiration_seconds: int | None = Field(None, description="Wanted lifetime in seconds, at least 600.")
    bound_object_ref: BoundObjectReference | None = Field(None, description="Binds the token to an object.")


class TokenRequestStatus(Model):
    """The token."""

    token: str = Field(description="The bearer token.")
    expiration_timestamp: Time = Field(description="When it expires.")


class TokenRequest(Model):
    """Asks for a token of a service account."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = _METADATA
    spec: TokenRequestSpec = Field(default_factory=TokenRequestSpec, description="The token that is asked for.")
    status: TokenRequestStatus | None = Field(None, description="The answer.")
