# mypy: ignore-errors
"""A watch that has lost its place, with the official Python client: `python relist.py KUBECONFIG NAMESPACE`.

It lists, watches and writes, prints {"compact": true} and waits for a line on standard input, before which the server
is to forget its history. Then it watches from where it was, lists anew, and watches from there. The last line that it
prints is JSON: what it saw.
"""

import json
import sys

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

DEADLINE = 60


def role(name: str) -> client.V1Role:
    return client.V1Role(metadata=client.V1ObjectMeta(name=name), rules=[])


def main() -> None:
    kubeconfig, namespace = sys.argv[1:]
    config.load_kube_config(kubeconfig)
    rbac = client.RbacAuthorizationV1Api()
    told = {}

    def listed() -> tuple[str, list[str]]:
        found = rbac.list_namespaced_role(namespace)
        return found.metadata.resource_version, sorted(item.metadata.name for item in found.items)

    def watched(count: int, **options: object) -> list[list[str]]:
        """The first events. Raises ApiException with 410 when they are forgotten."""
        seen, watcher = [], watch.Watch()
        for event in watcher.stream(rbac.list_namespaced_role, namespace, **options):
            seen.append([event["type"], event["object"].metadata.name])
            if len(seen) == count:
                watcher.stop()
        return seen

    before, told["listed"] = listed()
    rbac.create_namespaced_role(namespace, role("first"))
    told["watched"] = watched(1, resource_version=before, timeout_seconds=DEADLINE)
    rbac.create_namespaced_role(namespace, role("missed"))

    print(json.dumps({"compact": True}), flush=True)
    sys.stdin.readline()

    options = {"watch": True, "resource_version": before, "timeout_seconds": 5}
    raw = rbac.list_namespaced_role(namespace, **options, _preload_content=False)
    event = json.loads(raw.data.splitlines()[0])
    status = event["object"]
    told["event"] = [raw.status, event["type"], status["kind"], status["code"], status["reason"], status["message"]]
    try:
        told["refused"] = watched(1, resource_version=before, timeout_seconds=5)
    except ApiException as error:
        told["refused"] = [error.status, error.reason]

    after, told["listed anew"] = listed()
    rbac.create_namespaced_role(namespace, role("later"))
    rbac.delete_namespaced_role("first", namespace)
    told["watched anew"] = watched(2, resource_version=after, timeout_seconds=DEADLINE)
    print(json.dumps(told))


main()
