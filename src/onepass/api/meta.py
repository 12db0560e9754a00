"""What every Kubernetes object has: type, metadata, and the names by which discovery knows its kind.

Objects travel through the server as plain JSON (`Object`); a kind's pydantic model checks them at the border.
"""

from dataclasses import dataclass
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Object: TypeAlias = dict[str, JSON]


@dataclass(frozen=True, slots=True)
class Resource:
    """The names of one kind, as API discovery publishes them (`meta/v1 APIResource`)."""

    group: str  # "" for the core group
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """`group/version`, or the bare version for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def builtin(self) -> bool:
        """Whether the group is one of Kubernetes' own, by the rule for API groups: no dot, or under k8s.io."""
        return "." not in self.group or self.group.endswith(".k8s.io")

    @property
    def key(self) -> str:
        """`plural.group`, unique in a catalog; the plural alone for the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def section(obj: Object, key: str) -> Object:
    """The mapping under `key`, or an empty one when it is absent or of another type."""
    value = obj.get(key)
    return value if isinstance(value, dict) else {}


def text(obj: Object, key: str) -> str:
    """The string under `key`, or "" when it is absent or of another type."""
    value = obj.get(key)
    return value if isinstance(value, str) else ""


def name(obj: Object) -> str:
    """`metadata.name`, or ""."""
    return text(section(obj, "metadata"), "name")


def namespace(obj: Object) -> str:
    """`metadata.namespace`, or "" for a cluster-scoped object."""
    return text(section(obj, "metadata"), "namespace")


def uid(obj: Object) -> str:
    """`metadata.uid`, or ""."""
    return text(section(obj, "metadata"), "uid")


def resource_version(obj: Object) -> int:
    """`metadata.resourceVersion` as the storage revision it is; 0 when absent or not a number."""
    version = text(section(obj, "metadata"), "resourceVersion")
    return int(version) if version.isascii() and version.isdigit() else 0


def labels(obj: Object) -> dict[str, str]:
    """`metadata.labels`, without values that are not strings."""
    return {k: v for k, v in section(section(obj, "metadata"), "labels").items() if isinstance(v, str)}


def annotations(obj: Object) -> dict[str, str]:
    """`metadata.annotations`, without values that are not strings."""
    return {k: v for k, v in section(section(obj, "metadata"), "annotations").items() if isinstance(v, str)}
