"""`selfclusterreviews`: which members the caller may do anything on. It tells nothing that a try at each would not."""

from collections.abc import Callable, Sequence

from onepass.access.identity import Identity
from onepass.api import access_v1beta1
from onepass.api.meta import JSON, Object, Resource
from onepass.apiserver.ports import Kindless

RESOURCE = Resource(
    "access.karpor.io", "v1beta1", "SelfClusterReview", "selfclusterreviews", "selfclusterreview", namespaced=False
)


def kindless(reachable: Callable[[Identity], Sequence[str]]) -> Kindless:
    """`reachable` gives the names of the clusters that someone may do anything on."""

    async def answer(obj: Object, identity: Identity, _namespace: str) -> Object:
        clusters: list[JSON] = [*sorted(reachable(identity))]
        return {**obj, "status": {"clusters": clusters}}

    return Kindless(RESOURCE, access_v1beta1.SelfClusterReview, answer)
