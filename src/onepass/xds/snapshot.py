"""What the data plane should have: resources by type URL and name, each with a version of its own.

The terms are those of the delta variant of the xDS transport protocol
(https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Resource:
    """One serialised message; `version` is its content hash, so that equal bytes are never sent twice."""

    body: bytes
    version: str

    @classmethod
    def of(cls, body: bytes) -> "Resource":
        return cls(body, hashlib.blake2b(body, digest_size=8).hexdigest())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every resource at one moment: type URL -> resource name -> resource."""

    types: Mapping[str, Mapping[str, Resource]] = field(default_factory=lambda: MappingProxyType({}))

    def of_type(self, type_url: str) -> Mapping[str, Resource]:
        return self.types.get(type_url, {})
