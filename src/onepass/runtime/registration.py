"""Registers the sandbox members of this run as Clusters, and takes away those of earlier runs."""

import base64
from collections.abc import Sequence

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.registry import selection
from onepass.registry.store import Store, Write
from onepass.runtime import statuses
from onepass.runtime.sandboxes import Access

LABEL = "onepass.karpor.io/sandbox"


async def register(clusters: Store, members: Sequence[Access]) -> None:
    """Every one of `members`, and no other sandbox member. Raises ApiError."""
    for number, access in enumerate(members):
        wanted = _cluster(access, by_token=number % 2 == 1)
        write = Write(statuses.actor())

        def renew(current: Object, wanted: Object = wanted) -> Object:
            return current | {"spec": wanted["spec"]}

        try:
            await clusters.create("", wanted, write)
        except ApiError as refused:
            if refused.reason != "AlreadyExists":
                raise
            await clusters.update("", access.name, renew, write)
    running = {access.name for access in members}
    chosen = selection.parse(clusters.strategy, LABEL, "")
    for left in (await clusters.list("", chosen)).items:
        if meta.name(left) not in running:
            await clusters.delete("", meta.name(left), Write(statuses.actor()))


def _cluster(access: Access, *, by_token: bool) -> Object:
    """One member proves the way by certificate, the next one that by token: both ways are always tried."""
    credential: Object = {"type": "ServiceAccountToken", "serviceAccountToken": access.token}
    if not by_token:
        pair: Object = {"certificate": _data(access.certificate), "privateKey": _data(access.private_key)}
        credential = {"type": "X509Certificate", "x509": pair}
    reached: Object = {"endpoint": access.endpoint, "caBundle": _data(access.ca), "credential": credential}
    return {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": access.name, "labels": {LABEL: "true"}},
        "spec": {"provider": "sandbox", "displayName": f"Sandbox {access.name.rpartition('-')[2]}", "access": reached},
    }


def _data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
