"""The parts that the models of all kinds share (k8s.io/apimachinery/pkg/apis/meta/v1).

A model is the border: it says which fields a kind has, of which type, and what each is for, as `kubectl explain` tells
it. A JSON object goes through the server, never an instance of a model.
"""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict


class Model(BaseModel):
    """Field names are camelCase on the wire, and types are taken as they are: "1" is no integer."""

    model_config = ConfigDict(alias_generator=to_camel, strict=True)


# datetime reads all of ISO 8601, which has week dates and more (RFC 3339, 5.6).
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(value: str) -> str:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        read = False
    else:
        read = _RFC3339.fullmatch(value) is not None
    if not read:
        raise ValueError("must be a time in RFC 3339 form, such as 2026-01-31T12:00:00Z")
    return value


Time = Annotated[str, AfterValidator(_rfc3339), Field(json_schema_extra={"format": "date-time"})]

API_VERSION = Field(
    "",
    alias="apiVersion",
    description="The versioned schema of this representation of an object, as GROUP/VERSION (the core group: VERSION).",
)
KIND = Field("", description="The kind of object that this is, in CamelCase. It cannot be changed.")

BYTES: JsonDict = {"format": "byte"}  # a Go []byte: base64 in JSON
# Of a map, or of an object whose fields only mean something together: it is applied, and managed, as a whole.
ATOMIC: JsonDict = {"x-kubernetes-map-type": "atomic"}
WHOLE = ConfigDict(json_schema_extra=ATOMIC)


class OwnerReference(Model):
    """An object that this one belongs to: it is deleted when its owners are gone."""

    model_config = WHOLE

    api_version: str = Field(description="API version of the owner.")
    kind: str = Field(description="Kind of the owner.")
    name: str = Field(description="Name of the owner.")
    uid: str = Field(description="UID of the owner.")
    controller: bool | None = Field(None, description="Whether this owner is the one that manages the object.")
    block_owner_deletion: bool | None = Field(
        None, description="Whether the owner stays, when deleted in the foreground, until this object is gone."
    )


class ManagedFieldsEntry(Model):
    """Which fields one manager set, and when."""

    manager: str | None = Field(None, description="Name of the manager of these fields.")
    operation: str | None = Field(None, description="Apply or Update.")
    api_version: str | None = Field(None, description="Version of the object that the fields belong to.")
    time: Time | None = Field(None, description="When the manager last changed one of them.")
    fields_type: str | None = Field(None, description="Format of the field set: FieldsV1.")
    fields_v1: dict[str, object] | None = Field(None, alias="fieldsV1", description="The field set.")
    subresource: str | None = Field(None, description="The subresource through which they were set, if any.")


class ObjectMeta(Model):
    """Metadata that every stored object has."""

    name: str | None = Field(None, description="Name of the object: unique among its kind in its namespace.")
    generate_name: str | None = Field(
        None, description="Prefix of a unique name that the server makes up when name is not given."
    )
    namespace: str | None = Field(None, description="The namespace that the object lives in, if its kind has one.")
    uid: str | None = Field(None, description="Identifies this object in time and space. Set by the server.")
    resource_version: str | None = Field(
        None,
        description="The version of the object, to be compared for equality only. A write that names one is refused "
        "when the object has changed since.",
    )
    generation: int | None = Field(None, description="Counts the changes of the desired state. Set by the server.")
    creation_timestamp: Time | None = Field(None, description="When the object was created. Set by the server.")
    deletion_timestamp: Time | None = Field(
        None, description="When the object is to be gone. Set by the server when a deletion has to wait."
    )
    deletion_grace_period_seconds: int | None = Field(
        None, description="Seconds that the object gets to end gracefully. Set by the server with deletionTimestamp."
    )
    labels: dict[str, str] | None = Field(None, description="Keys and values by which objects are selected.")
    annotations: dict[str, str] | None = Field(
        None, description="Keys and values that tools keep with the object; objects are never selected by them."
    )
    finalizers: list[str] | None = Field(
        None,
        description="Names that must be removed, each by who put it there, before a deleted object goes.",
        json_schema_extra={"x-kubernetes-patch-strategy": "merge", "x-kubernetes-list-type": "set"},
    )
    owner_references: list[OwnerReference] | None = Field(
        None,
        description="The objects that this one belongs to.",
        json_schema_extra={
            "x-kubernetes-patch-strategy": "merge",
            "x-kubernetes-patch-merge-key": "uid",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
        },
    )
    managed_fields: list[ManagedFieldsEntry] | None = Field(
        None, description="Which manager set which fields. Kept by the server."
    )
    self_link: str | None = Field(None, description="No longer used.")


class LabelSelectorRequirement(Model):
    """One condition on one label."""

    key: str = Field(description="The label that the condition is about.")
    operator: str = Field(description="In, NotIn, Exists or DoesNotExist.")
    values: list[str] | None = Field(
        None, description="The values for In and NotIn, at least one; none for Exists and DoesNotExist."
    )


class LabelSelector(Model):
    """Selects objects by their labels. All conditions must hold; no condition at all selects every object."""

    model_config = WHOLE

    match_labels: dict[str, str] | None = Field(None, description="Labels that must be there with these values.")
    match_expressions: list[LabelSelectorRequirement] | None = Field(None, description="Conditions on labels.")


class Condition(Model):
    """One aspect of the observed state."""

    type: str = Field(description="Type of the condition, in CamelCase.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    observed_generation: int | None = Field(None, description="The generation that the condition was set for.")
    last_transition_time: Time | None = Field(None, description="When the status last changed.")
    reason: str | None = Field(None, description="Why, as one CamelCase word for programs.")
    message: str | None = Field(None, description="Why, as a sentence for people.")


CONDITIONS: JsonDict = {
    "x-kubernetes-patch-strategy": "merge",
    "x-kubernetes-patch-merge-key": "type",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
}
