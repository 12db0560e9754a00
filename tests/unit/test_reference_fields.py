"""Who manages which field, held against Kubernetes' own field manager on generated updates and applies."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.programs import golang, references
from tests.programs.references import Reference
from tests.unit import gadgets

from onepass.access.identity import Identity
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.registry import catalog, fieldowners
from onepass.registry.fieldowners import Write
from onepass.registry.fields import typedvalues
from onepass.registry.strategy import Actor, Strategy
from onepass.sandbox import kinds

ACTOR = Identity("alice", ())
NOW = 1_800_000_000.0
EXAMPLES = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


KINDS = {strategy.resource.kind: strategy for strategy in (*catalog.GATEWAY, *kinds.member("node"))}


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    try:
        with references.running(gadgets.schemas(gadgets.STRATEGY, *KINDS.values())) as started:
            yield started
    except golang.GoMissing as why:
        pytest.skip(str(why))


def step(managers: st.SearchStrategy[str]) -> st.SearchStrategy[Object]:
    update = st.fixed_dictionaries(
        {"do": st.just("update"), "object": gadgets.gadgets(doubled=True), "manager": managers, "force": st.just(False)}
    )
    apply = st.fixed_dictionaries(
        {"do": st.just("apply"), "object": gadgets.gadgets(nulls=True), "manager": managers, "force": st.booleans()}
    )
    return cast(st.SearchStrategy[Object], st.one_of(update, apply, apply))


STEPS = st.lists(step(st.sampled_from(["one", "two", "kubectl"])), min_size=1, max_size=6)


def ours(strategy: Strategy, steps: Sequence[Object], subresource: str) -> list[Object]:
    """What becomes of the object, step by step, as goreference tells it."""
    live: Object = {}
    told: list[Object] = []
    for one in copy.deepcopy(steps):
        given = meta.section(one, "object")
        form = "apply" if one["do"] == "apply" else "object"
        actor = Actor(ACTOR, NOW, meta.text(one, "manager"))
        write = Write(actor, subresource=subresource, form=form, config=given, force=one["force"] is True)  # type: ignore[arg-type]
        try:
            new = fieldowners.applying(strategy, write)(copy.deepcopy(live)) if form == "apply" else given
            sent = meta.section(new, "metadata").get("managedFields")
            live = fieldowners.owned(strategy, live or None, new, sent, write)
        except ApiError as refused:
            fields: list[JSON] = [f"{c.reason}|{c.message}|{c.field}" for c in refused.causes]
            told.append({"error": refused.message, **({"fields": fields} if fields else {})})
            continue
        live["metadata"] = {**meta.section(live, "metadata"), "uid": "1"}
        told.append({"object": live})
    return told


def managing(entry: JSON) -> str:
    return str(
        [entry.get(key) for key in ("operation", "manager", "subresource")] if isinstance(entry, dict) else entry
    )


def plain(value: JSON) -> JSON:
    """Without what may differ: the time itself, the order of fields in a conflict, the words of other refusals."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "error" in value and "fields" not in value:
        return {"error": True}
    told: Object = {key: plain(part) for key, part in value.items()}
    if "time" in told:
        told["time"] = "set"
    if isinstance(told.get("managedFields"), list):  # which are in the order of their times
        told["managedFields"] = sorted(told["managedFields"], key=managing)  # type: ignore[arg-type]
    if isinstance(value.get("fields"), list):
        told["fields"] = [*sorted(str(field) for field in told["fields"])]  # type: ignore[union-attr]
    return {key: part for key, part in told.items() if (key, part) != ("metadata", {})}


def agrees(
    reference: Reference, strategy: Strategy, steps: Sequence[Object], subresource: str, reset: Sequence[Sequence[str]]
) -> None:
    case: Mapping[str, JSON] = {
        "do": "fields",
        "apiVersion": strategy.resource.api_version,
        "kind": strategy.resource.kind,
        "subresource": subresource,
        "reset": [list(path) for path in reset],
        "steps": list(steps),
    }
    theirs = reference.ask(case)["steps"]
    mine = ours(strategy, steps, subresource)
    assert isinstance(theirs, list)
    for number, (expected, found) in enumerate(zip(theirs, mine, strict=True)):
        assert typedvalues.same(plain(found), plain(expected)), (
            f"step {number}: {plain(found)} is not {plain(expected)}"
        )


@EXAMPLES
@given(steps=STEPS)
def test_managers_are_those_of_kubernetes(reference: Reference, steps: list[Object]) -> None:
    agrees(reference, gadgets.STRATEGY, steps, "", [["status"]])


@EXAMPLES
@given(steps=STEPS)
def test_managers_of_a_subresource_are_those_of_kubernetes(reference: Reference, steps: list[Object]) -> None:
    agrees(reference, gadgets.STRATEGY, steps, "status", [["spec"], ["metadata"], ["apiVersion"], ["kind"]])


POD = """
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {a: b}, finalizers: [x.io/y]}
spec:
  nodeSelector: {disk: fast}
  tolerations: [{key: a, operator: Exists}]
  volumes: [{name: data, emptyDir: {}}, {name: other, configMap: {name: c, items: [{key: a, path: b}]}}]
  initContainers: [{name: first, image: busybox}]
  containers:
    - name: main
      image: busybox
      command: [sleep, "1"]
      ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53, name: dns}]
      env: [{name: A, value: "1"}, {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}]
      envFrom: [{configMapRef: {name: c}}]
      volumeMounts: [{name: data, mountPath: /data}]
      resources: {limits: {cpu: 100m}}
      securityContext: {capabilities: {drop: [ALL]}}
      livenessProbe: {httpGet: {path: /, port: 80}}
    - {name: second, image: nginx}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: s}
spec:
  selector: {a: b}
  ports: [{name: dns, port: 53, protocol: UDP, targetPort: dns}, {name: dns-tcp, port: 53}]
  externalIPs: [192.0.2.1]
"""
OTHERS = """
{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: b}, binaryData: {c: ZA==}, immutable: false}
---
{apiVersion: v1, kind: Secret, metadata: {name: s}, type: Opaque, data: {a: Yg==}, stringData: {c: d}}
---
{apiVersion: v1, kind: Event, metadata: {name: e}, involvedObject: {kind: Pod, name: p}, reason: Made, count: 1}
---
apiVersion: v1
kind: Node
metadata: {name: n}
spec: {taints: [{key: a}]}
status: {conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: a}
secrets: [{name: x}, {name: y}]
imagePullSecrets: [{name: z}]
---
{apiVersion: v1, kind: Namespace, metadata: {name: n}, spec: {finalizers: [kubernetes]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: r}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: b, ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: u}]}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: r}
subjects: [{kind: User, name: jane}]
---
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: c}
spec: {request: YQ==, signerName: x.io/y, usages: [client auth]}
status: {conditions: [{type: Approved, status: "True", lastUpdateTime: "2026-01-01T00:00:00Z"}]}
---
apiVersion: cluster.karpor.io/v1beta1
kind: Cluster
metadata: {name: c}
spec:
  provider: x
  access:
    endpoint: https://192.0.2.1
    credential:
      type: X509Certificate
      x509: {certificate: YQ==, privateKey: Yg==}
      execConfig: {command: a, env: [{name: A, value: b}]}
---
apiVersion: access.karpor.io/v1beta1
kind: Pass
metadata: {name: p}
spec:
  subjects: [{kind: User, name: jane}]
  clusters: {names: [a, b], selector: {matchLabels: {a: b}}}
  rules: [{apiGroups: [""], resources: [pods], verbs: [get], namespaces: [a]}]
  notAfter: "2030-01-01T00:00:00Z"
"""
OBJECTS: Sequence[Object] = [*yaml.safe_load_all(OTHERS), yaml.safe_load(POD), yaml.safe_load(SERVICE)]


def fewer(value: JSON) -> JSON:
    """Without the last field of each map and the last element of each list, as far as something is left."""
    if isinstance(value, list):
        return [fewer(item) for item in value[: max(1, len(value) - 1)]]
    if not isinstance(value, dict):
        return value
    kept = list(value)[: max(1, len(value) - 1)]
    return {key: fewer(value[key]) for key in kept}


def other(value: JSON) -> JSON:
    """With other texts, but for those that tell elements apart."""
    if isinstance(value, list):
        return [other(item) for item in value]
    if isinstance(value, dict):
        fixed = ("name", "mountPath", "type", "protocol", "apiVersion", "kind", "finalizers")
        return {key: part if key in fixed else other(part) for key, part in value.items()}
    return f"{value}x" if isinstance(value, str) else value


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: str(obj["kind"]))
def test_every_kind_has_the_managers_that_kubernetes_gives_it(reference: Reference, obj: Object) -> None:
    """The schema that is published, read by Kubernetes' library, is the one that we go by."""
    head = {key: obj[key] for key in ("apiVersion", "kind", "metadata")}
    less = cast(Object, fewer(obj)) | head
    changed = cast(Object, other(obj)) | head
    steps: list[Object] = [
        {"do": "update", "object": less, "manager": "maker", "force": False},
        {"do": "apply", "object": obj, "manager": "one", "force": False},
        {"do": "apply", "object": changed, "manager": "two", "force": False},
        {"do": "apply", "object": changed, "manager": "two", "force": True},
        {"do": "apply", "object": less, "manager": "one", "force": True},
        {"do": "apply", "object": head, "manager": "two", "force": False},
        {"do": "update", "object": changed, "manager": "maker", "force": False},
    ]
    strategy = KINDS[meta.text(obj, "kind")]
    reset = [path.split(".") for paths in strategy.subresources.values() for path in paths]
    agrees(reference, strategy, steps, "", reset)
