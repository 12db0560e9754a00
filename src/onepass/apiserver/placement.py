"""Admission that keeps objects in namespaces that are there, as kube-apiserver's NamespaceLifecycle does."""

from onepass.apiserver.ports import Admission, Attempt
from onepass.registry.store import Store


def admission(namespaces: Store) -> Admission:
    """Refuses a new object in a namespace that is absent: what was made there would never be deleted with it."""

    async def admit(attempt: Attempt) -> None:
        if attempt.operation == "CREATE" and attempt.resource.namespaced:
            await namespaces.get("", attempt.namespace)

    return admit
