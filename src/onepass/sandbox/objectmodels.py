"""The plain kinds of a member: `v1` ConfigMap, Secret, Service, Event and Node."""

from pydantic import Field

from onepass.api import objectmeta
from onepass.api.objectmeta import ObjectMeta
from onepass.sandbox.podmodels import WHOLE, Open, keyed


class ConfigMap(Open):
    """Keys and values for programs to read."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    data: dict[str, str] | None = Field(None, description="Text by key.")
    binary_data: dict[str, str] | None = Field(None, description="Bytes by key, in base64.")
    immutable: bool | None = Field(None, description="Whether the data may never change again.")


class Secret(Open):
    """Keys and confidential values."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    type: str = Field("Opaque", description="What the keys stand for.")
    data: dict[str, str] | None = Field(None, description="Bytes by key, in base64.")
    string_data: dict[str, str] | None = Field(None, description="Text by key, which goes into data when written.")
    immutable: bool | None = Field(None, description="Whether the data may never change again.")


class ServicePort(Open):
    """A port of a service."""

    port: int = Field(ge=1, le=65535, description="The port.")
    name: str | None = Field(None, description="Name of the port.")
    protocol: str = Field("TCP", description="TCP, UDP or SCTP.")
    target_port: int | str | None = Field(None, description="Port of the pods, as a number or a name.")


class ServiceSpec(Open):
    """Which pods a service stands for."""

    type: str = Field("ClusterIP", description="ClusterIP, NodePort, LoadBalancer or ExternalName.")
    selector: dict[str, str] | None = Field(
        None, description="Labels of its pods.", json_schema_extra=objectmeta.ATOMIC
    )
    ports: list[ServicePort] | None = Field(None, description="Its ports.", json_schema_extra=keyed("port", "protocol"))
    cluster_ip: str | None = Field(None, alias="clusterIP", description="Its address; the sandbox gives none.")


class Service(Open):
    """A name for some pods. The sandbox keeps it, and carries no traffic for it."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    spec: ServiceSpec = Field(description="Which pods it stands for.")
    status: dict[str, object] | None = Field(None, description="Not used.")


class EventReference(Open):
    """The object that an event is about."""

    model_config = WHOLE

    kind: str | None = Field(None, description="Kind of the object.")
    namespace: str | None = Field(None, description="Namespace of the object.")
    name: str | None = Field(None, description="Name of the object.")
    uid: str | None = Field(None, description="UID of the object.")


class Event(Open):
    """Something that happened to an object."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    involved_object: EventReference = Field(description="The object that it happened to.")
    type: str | None = Field(None, description="Normal or Warning.")
    reason: str | None = Field(None, description="What happened, as one word.")
    message: str | None = Field(None, description="What happened, as a sentence.")
    count: int | None = Field(None, description="How many times.")
    first_timestamp: str | None = Field(None, description="When it happened first.")
    last_timestamp: str | None = Field(None, description="When it happened last.")


class NodeStatus(Open):
    """State of a node."""

    conditions: list[dict[str, object]] | None = Field(
        None, description="Its state, aspect by aspect.", json_schema_extra=keyed("type")
    )


class Node(Open):
    """A machine that runs pods: in the sandbox, this one."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    spec: dict[str, object] | None = Field(None, description="What is wished for.")
    status: NodeStatus | None = Field(None, description="Its state. Kept by the kubelet.")
