"""One client's conversation: its subscriptions, what it was sent, what it has answered. No I/O."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2

from onepass.xds.snapshot import Snapshot
from onepass.xds.subscription import Subscription

_PREFIX = "type.googleapis.com/"
CLUSTER = _PREFIX + "envoy.config.cluster.v3.Cluster"
SECRET = _PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
LISTENER = _PREFIX + "envoy.config.listener.v3.Listener"
EXTENSION = _PREFIX + "envoy.config.core.v3.TypedExtensionConfig"

# Make before break: what is referred to goes before what refers to it, and removals come last, the other way round.
# Secrets lead, so that a cluster that changes together with its credential connects with the new one.
_ORDER = (SECRET, CLUSTER, LISTENER, EXTENSION)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A client refused a response with these resources in it, of which one at least is bad."""

    node: str
    type_url: str
    names: tuple[str, ...]
    message: str  # the client's


@dataclass(frozen=True, slots=True)
class _Sent:
    type_url: str
    names: tuple[str, ...]
    generation: int


@dataclass(slots=True, eq=False)
class Stream:
    """The state of one stream."""

    node: str = ""
    generation: int = 0  # the last snapshot of which everything was sent
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    rejections: dict[tuple[str, tuple[str, ...]], Rejection] = field(default_factory=dict)  # narrowed to one resource
    _outstanding: dict[str, _Sent] = field(default_factory=dict)
    _again: list[_Sent] = field(default_factory=list)
    _nonces: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def receive(self, request: discovery_pb2.DeltaDiscoveryRequest) -> Rejection | None:
        """Take in a request: a subscription, an acknowledgement, a refusal, or several of these at once.

        A refused response of several resources is sent again in halves, so that one bad resource holds up no other.
        """
        self.node = self.node or request.node.id
        subscription = self.subscriptions.setdefault(request.type_url, Subscription())
        answered = self._outstanding.pop(request.response_nonce, None) if request.response_nonce else None
        if answered is None or request.resource_names_subscribe or request.resource_names_unsubscribe:
            subscription.request(
                request.resource_names_subscribe,
                request.resource_names_unsubscribe,
                request.initial_resource_versions,
            )
        if answered is None:
            return None
        if not request.HasField("error_detail"):
            for name in answered.names:
                self.rejections.pop((answered.type_url, (name,)), None)
            return None
        rejection = Rejection(self.node, answered.type_url, answered.names, request.error_detail.message)
        if len(answered.names) > 1:
            half = len(answered.names) // 2
            for part in (answered.names[:half], answered.names[half:]):
                self._again.append(_Sent(answered.type_url, part, answered.generation))
        else:
            self.rejections[answered.type_url, answered.names] = rejection
        return rejection

    def invalidate(self) -> None:
        """The snapshot has changed."""
        for subscription in self.subscriptions.values():
            subscription.invalidate()

    def responses(self, snapshot: Snapshot, generation: int) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """What this client must be sent, in this order, to hold `snapshot`; the caller sends all of it."""
        again, self._again = self._again, []
        responses = [self._response(snapshot, generation, sent.type_url, sent.names, ()) for sent in again]
        removals: list[tuple[str, list[str]]] = []
        for type_url in sorted(self.subscriptions, key=_rank):
            subscription = self.subscriptions[type_url]
            owed = subscription.owed
            changed, removed = subscription.pending(snapshot.of_type(type_url))
            if changed or (owed and not removed):
                responses.append(self._response(snapshot, generation, type_url, changed, ()))
            if removed:
                removals.append((type_url, removed))
        responses += [self._response(snapshot, generation, type_url, (), gone) for type_url, gone in reversed(removals)]
        self.generation = generation
        return responses

    def settled(self, generation: int, types: Collection[str]) -> bool:
        """Whether the client has asked for each of `types`, was sent all that it asked for, and has answered everything
        up to `generation`. A cluster makes Envoy ask for its secrets, and is in use when it has them."""
        return (
            self.generation >= generation
            and all(type_url in self.subscriptions for type_url in types)
            and not any(each.due for each in self.subscriptions.values())
            and not any(sent.generation <= generation for sent in (*self._outstanding.values(), *self._again))
        )

    def _response(
        self, snapshot: Snapshot, generation: int, type_url: str, names: Sequence[str], removed: Sequence[str]
    ) -> discovery_pb2.DeltaDiscoveryResponse:
        nonce = str(next(self._nonces))
        response = discovery_pb2.DeltaDiscoveryResponse(
            system_version_info=str(generation), type_url=type_url, nonce=nonce, removed_resources=removed
        )
        resources = snapshot.of_type(type_url)
        for name in names:
            resource = resources.get(name)
            if resource is not None:
                entry = response.resources.add(name=name, version=resource.version)
                entry.resource.type_url = type_url
                entry.resource.value = resource.body
        for name in removed:
            self.rejections.pop((type_url, (name,)), None)
        self._outstanding[nonce] = _Sent(type_url, tuple(entry.name for entry in response.resources), generation)
        return response


def _rank(type_url: str) -> tuple[int, str]:
    return (_ORDER.index(type_url) if type_url in _ORDER else len(_ORDER), type_url)
