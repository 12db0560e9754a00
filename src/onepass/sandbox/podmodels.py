"""`v1 Pod`: the fields that manifests commonly use. All others are accepted and kept, so that any manifest applies."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from onepass.api import objectmeta
from onepass.api.meta import JSON
from onepass.api.objectmeta import ObjectMeta


class Open(BaseModel):
    """Field names are camelCase on the wire, types are taken as they are, and unknown fields are kept."""

    model_config = ConfigDict(alias_generator=to_camel, strict=True, extra="allow")


WHOLE = ConfigDict(json_schema_extra=objectmeta.ATOMIC)


def keyed(key: str, *more: str) -> dict[str, JSON]:
    """How patches treat a list: as a map by `key`; `more` are keys that only server-side apply knows."""
    return {
        "x-kubernetes-patch-strategy": "merge",
        "x-kubernetes-patch-merge-key": key,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key, *more],
    }


class KeySelector(Open):
    """One key of a ConfigMap or a Secret."""

    model_config = WHOLE

    name: str = Field("", description="Name of the object.")
    key: str = Field(description="Key in its data.")
    optional: bool | None = Field(None, description="Whether the object or the key may be missing.")


class FieldSelector(Open):
    """A field of the pod."""

    model_config = WHOLE

    field_path: str = Field(description="Path of the field, such as metadata.name.")


class EnvSource(Open):
    """Where a variable's value comes from."""

    field_ref: FieldSelector | None = Field(None, description="A field of the pod.")
    config_map_key_ref: KeySelector | None = Field(None, description="A key of a ConfigMap.")
    secret_key_ref: KeySelector | None = Field(None, description="A key of a Secret.")


class EnvVar(Open):
    """A variable in a container's environment."""

    name: str = Field(description="Name of the variable.")
    value: str | None = Field(None, description="Its value; $(NAME) stands for a variable that was set before.")
    value_from: EnvSource | None = Field(None, description="Where the value comes from, instead of `value`.")


class ContainerPort(Open):
    """A port that a container listens on. In the sandbox it is a port of this machine's loopback."""

    container_port: int = Field(ge=1, le=65535, description="The port.")
    name: str | None = Field(None, description="Name of the port.")
    protocol: Literal["TCP", "UDP", "SCTP"] = Field("TCP", description="TCP, UDP or SCTP.")


class VolumeMount(Open):
    """Where a volume is to appear. The sandbox keeps it and mounts nothing."""

    name: str = Field(description="Name of the volume.")
    mount_path: str = Field(description="Path in the container.")


class Container(Open):
    """A program of the pod: in the sandbox, a local process."""

    name: str = Field(description="Name of the container, unique in the pod.")
    image: str = Field("", description="The image; without a command it chooses what the sandbox runs.")
    command: list[str] | None = Field(None, description="The program and its first arguments.")
    args: list[str] | None = Field(None, description="More arguments.")
    working_dir: str | None = Field(None, description="Where it runs: below the container's own folder.")
    ports: list[ContainerPort] | None = Field(
        None, description="Ports that it listens on.", json_schema_extra=keyed("containerPort", "protocol")
    )
    env: list[EnvVar] | None = Field(None, description="Its environment.", json_schema_extra=keyed("name"))
    env_from: list[dict[str, object]] | None = Field(
        None, description="ConfigMaps and Secrets all of whose keys become variables."
    )
    resources: dict[str, object] = Field(default_factory=dict, description="Requests and limits; not enforced.")
    volume_mounts: list[VolumeMount] | None = Field(
        None, description="Volumes to mount; kept, not mounted.", json_schema_extra=keyed("mountPath")
    )
    image_pull_policy: str | None = Field(None, description="Kept; the sandbox pulls nothing.")
    stdin: bool | None = Field(None, description="Whether its input stays open for `attach`.")
    stdin_once: bool | None = Field(None, description="Whether its input ends with the first client's that attaches.")
    tty: bool | None = Field(None, description="Whether it has a terminal.")
    termination_message_path: str = Field("/dev/termination-log", description="Kept; not read.")
    termination_message_policy: str = Field("File", description="Kept.")


class Volume(Open):
    """A volume. The sandbox keeps it and mounts nothing."""

    name: str = Field(description="Name of the volume.")


class PodSpec(Open):
    """What the pod runs."""

    volumes: list[Volume] | None = Field(None, description="Volumes; kept.", json_schema_extra=keyed("name"))
    init_containers: list[Container] | None = Field(
        None, description="Programs that run before, one after another.", json_schema_extra=keyed("name")
    )
    containers: list[Container] = Field(
        min_length=1, description="Programs that run side by side.", json_schema_extra=keyed("name")
    )
    restart_policy: Literal["Always", "OnFailure", "Never"] = Field(
        "Always", description="Whether a container that has ended starts anew."
    )
    termination_grace_period_seconds: int = Field(
        30, ge=0, description="Seconds between the request to end and the end by force."
    )
    active_deadline_seconds: int | None = Field(None, description="Kept; not enforced.")
    dns_policy: str = Field("ClusterFirst", description="Kept.")
    node_name: str | None = Field(None, description="The node that runs it.")
    node_selector: dict[str, str] | None = Field(
        None, description="Kept: there is one node.", json_schema_extra=objectmeta.ATOMIC
    )
    service_account_name: str | None = Field(None, description="The identity of the pod; kept.")
    scheduler_name: str = Field("default-scheduler", description="Kept.")
    security_context: dict[str, object] = Field(default_factory=dict, description="Kept; not enforced.")
    enable_service_links: bool = Field(True, description="Kept.")


class PodCondition(Open):
    """One aspect of the pod's state."""

    type: str = Field(description="Type of the condition.")
    status: str = Field(description="True, False or Unknown.")


class PodStatus(Open):
    """What has become of the pod."""

    phase: str | None = Field(None, description="Pending, Running, Succeeded or Failed.")
    conditions: list[PodCondition] | None = Field(
        None, description="Its state, aspect by aspect.", json_schema_extra=keyed("type")
    )
    reason: str | None = Field(None, description="Why it is in this phase, as one word.")
    message: str | None = Field(None, description="Why it is in this phase, as a sentence.")
    start_time: str | None = Field(None, description="When the kubelet took it on.")
    container_statuses: list[dict[str, object]] | None = Field(None, description="State of each container.")
    init_container_statuses: list[dict[str, object]] | None = Field(None, description="State of each init container.")


class Pod(Open):
    """Containers that run together: in the sandbox, local processes."""

    api_version: str = objectmeta.API_VERSION
    kind: str = objectmeta.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta, description="Standard object metadata.")
    spec: PodSpec = Field(description="What it runs.")
    status: PodStatus | None = Field(None, description="What has become of it. Kept by the kubelet.")
