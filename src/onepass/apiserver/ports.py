"""What an API server is made of: the parts that its builder hands in."""

import platform
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from onepass.access.attributes import Attributes
from onepass.access.identity import ADMINISTRATORS, Identity
from onepass.access.policy import Rule
from onepass.access.rules import Verdict
from onepass.api.meta import Object, Resource

# Who sends this request: None when it carries no credential. Raises unauthorized for one that does not hold.
Authenticate = Callable[[HTTPConnection], Awaitable[Identity | None]]

# Whether whoever is in front has decided already what this request may.
Judged = Callable[[HTTPConnection], bool]

# "" when all is well, otherwise why not, in words that anyone may read. Given two seconds.
Check = Callable[[], Awaitable[str]]


class Authorizer(Protocol):
    """May they; and everything that they may, for `kubectl auth can-i --list`, with why that may not be all ("")."""

    async def allows(self, identity: Identity, attributes: Attributes) -> Verdict: ...

    async def rules(self, identity: Identity, namespace: str) -> tuple[Sequence[Rule], str]: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """A write that is about to happen, after authentication and authorization. `obj` is None for a deletion."""

    identity: Identity
    operation: Literal["CREATE", "UPDATE", "DELETE"]
    resource: Resource
    subresource: str
    namespace: str
    name: str
    obj: Object | None
    old: Object | None


# Looks at a write and raises ApiError to refuse it; never alters what it is shown.
Admission = Callable[[Attempt], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Connect:
    """A subresource with a handler of its own, plain HTTP or WebSocket: exec, log, token, proxy.

    `handler` is an ASGI application. It finds the caller in `scope["identity"]`, what is asked in
    `scope["attributes"]` (access.attributes) and `namespace`, `name` and `tail` in `scope["path_params"]`; an ApiError
    that it raises before it answers becomes a Status, on a WebSocket too.
    """

    parent: Resource
    name: str
    kind: str  # what discovery names: PodExecOptions for pods/exec
    handler: ASGIApp
    methods: tuple[str, ...] = ("GET", "POST")
    verbs: tuple[str, ...] = ("create", "get")
    api_version: str = ""  # of `kind`, when it is not the parent's
    model: type[BaseModel] | None = None  # of the body and of the answer, for OpenAPI
    tail: bool = False  # the path goes on behind the subresource
    guards_itself: bool = False  # the handler authorizes, with rules that are not the server's


@dataclass(frozen=True, slots=True)
class Kindless:
    """A kind that is only ever created and never stored: a question with its answer, such as a SelfSubjectReview.

    `answer` gets the object, checked against the model, the caller and the namespace of the path ("" without one).
    """

    resource: Resource
    model: type[BaseModel]
    answer: Callable[[Object, Identity, str], Awaitable[Object]]


_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}  # as Go names them


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """What `/version` tells (k8s.io/apimachinery/pkg/version Info); `git_version` such as "v1.36.0+onepass.0.1"."""

    major: str
    minor: str
    git_version: str
    git_commit: str = ""
    build_date: str = ""
    git_tree_state: str = "clean"

    def told(self) -> Object:
        return {
            "major": self.major,
            "minor": self.minor,
            "gitVersion": self.git_version,
            "gitCommit": self.git_commit,
            "gitTreeState": self.git_tree_state,
            "buildDate": self.build_date,
            "goVersion": "",  # clients expect the fields of Go's struct
            "compiler": platform.python_implementation(),
            "platform": f"{platform.system().lower()}/{_MACHINES.get(platform.machine(), platform.machine())}",
        }


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost. Sizes in bytes, times in seconds."""

    body: int = 3 << 20  # as kube-apiserver's limit on resource requests
    depth: int = 128  # nesting of a JSON body
    patch_operations: int = 10_000
    answer: float = 60  # until there is an answer, the arrival of the body among it
    watch: tuple[float, float] = (1800, 3600)  # a watch without timeoutSeconds ends at random between the two
    watch_longest: float = 6 * 3600
    # Requests that are answered at a time, as kube-apiserver's defaults; watches and connections do not count.
    writing: int = 200
    reading: int = 400
    unbounded: frozenset[str] = frozenset({ADMINISTRATORS})  # groups that are never turned away
