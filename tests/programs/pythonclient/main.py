# mypy: ignore-errors
# The client's types say "str" of whatever its calls may also return.
"""The official Python client on one kubeconfig: `python main.py KUBECONFIG own|member NAMESPACE PORT`.

Each step is a function; what it returns is printed as a line of JSON, an exception as such. PORT is of an echo server.
"""

import base64
import json
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward, stream

DEADLINE = 60
# Python's client sends this content type for a list or a dict by itself; the others have to be asked for.
APPLY = "application/apply-patch+yaml"


class Steps:
    def __init__(self, namespace: str, port: int) -> None:
        self.namespace, self.port = namespace, port
        self.core = client.CoreV1Api()
        self.rbac = client.RbacAuthorizationV1Api()
        self.objects = client.CustomObjectsApi()
        self.dynamic = dynamic.DynamicClient(client.ApiClient())

    def account(self, name: str, **labels: str) -> client.V1ServiceAccount:
        return client.V1ServiceAccount(metadata=client.V1ObjectMeta(name=name, labels=labels or None))

    def listed(self, **options: Any) -> list[str]:
        found = self.core.list_namespaced_service_account(self.namespace, **options)
        return sorted(item.metadata.name for item in found.items if item.metadata.name != "default")

    # everywhere

    def version(self) -> Any:
        return client.VersionApi().get_code().major

    def apis(self) -> Any:
        return "rbac.authorization.k8s.io" in [group.name for group in client.ApisApi().get_api_versions().groups]

    def create(self) -> Any:
        self.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=self.namespace)))
        for name in ("a", "b", "c", "d", "e"):
            self.core.create_namespaced_service_account(self.namespace, self.account(name, one=name))
        return self.listed()

    def selectors(self) -> Any:
        return [
            self.listed(label_selector="one in (a,b)"),
            self.listed(field_selector="metadata.name=c"),
            self.listed(label_selector="one!=a,one"),
        ]

    def pages(self) -> Any:
        seen, token = [], None
        while True:
            page = self.core.list_namespaced_service_account(self.namespace, limit=2, _continue=token)
            seen.append(len(page.items) <= 2)
            token = page.metadata._continue
            if not token:
                return [all(seen), len(seen) >= 3]

    def bad_continue(self) -> Any:
        return refused(lambda: self.core.list_namespaced_service_account(self.namespace, limit=1, _continue="rubbish"))

    def conflict(self) -> Any:
        old = self.core.read_namespaced_service_account("a", self.namespace)
        old.metadata.labels["two"] = "2"
        new = self.core.replace_namespaced_service_account("a", self.namespace, old)
        return [
            new.metadata.labels,
            refused(lambda: self.core.replace_namespaced_service_account("a", self.namespace, old)),
        ]

    def errors(self) -> Any:
        return [
            refused(lambda: self.core.read_namespaced_service_account("nosuch", self.namespace)),
            refused(lambda: self.core.create_namespaced_service_account(self.namespace, self.account("a"))),
            refused(lambda: self.core.create_namespaced_service_account(self.namespace, self.account("Bad_Name"))),
            refused(lambda: self.core.list_namespaced_service_account(self.namespace, label_selector="==")),
        ]

    def patches(self) -> Any:
        def patch(body: Any, **options: Any) -> Any:
            told = self.core.patch_namespaced_service_account("b", self.namespace, body, **options)
            names = [secret.name for secret in told.secrets or []]
            return [names, told.metadata.labels]

        accounts = self.dynamic.resources.get(api_version="v1", kind="ServiceAccount")
        merged = accounts.patch(
            name="b",
            namespace=self.namespace,
            body={"secrets": [{"name": "z"}]},
            content_type="application/merge-patch+json",
        )
        return [
            patch({"secrets": [{"name": "x"}]}),
            patch({"secrets": [{"name": "y"}]}),
            patch([{"op": "add", "path": "/metadata/labels/json", "value": "yes"}]),
            patch({"metadata": {"labels": {"json": None}}}, dry_run="All"),
            [secret["name"] for secret in merged.to_dict()["secrets"]],
        ]

    def apply(self) -> Any:
        accounts = self.dynamic.resources.get(api_version="v1", kind="ServiceAccount")

        def apply(manager: str, value: str, force: bool = False) -> Any:
            body = {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "applied", "labels": {"v": value}},
            }
            told = accounts.server_side_apply(
                body, name="applied", namespace=self.namespace, field_manager=manager, force_conflicts=force or None
            )
            return [
                told.metadata.labels.v,
                sorted({field["manager"] for field in told.to_dict()["metadata"]["managedFields"]}),
            ]

        return [apply("one", "1"), apply("one", "2"), refused(lambda: apply("two", "3")), apply("two", "3", force=True)]

    def dynamic_client(self) -> Any:
        roles = self.dynamic.resources.get(api_version="rbac.authorization.k8s.io/v1", kind="Role")
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
        body = {"kind": "Role", "metadata": {"name": "r"}, "rules": rules}
        roles.create(body=body, namespace=self.namespace)
        got = roles.get(name="r", namespace=self.namespace)
        roles.delete(name="r", namespace=self.namespace)
        return [
            got.to_dict()["rules"],
            [row.to_dict()["metadata"]["name"] for row in roles.get(namespace=self.namespace).items],
        ]

    def watched(self) -> Any:
        version = self.core.list_namespaced_service_account(self.namespace).metadata.resource_version
        seen: list[Any] = []
        own = self.core.create_namespaced_service_account(self.namespace, self.account("w"))
        own.metadata.labels = {"changed": "yes"}
        self.core.replace_namespaced_service_account("w", self.namespace, own)
        self.core.delete_namespaced_service_account("w", self.namespace)
        watcher = watch.Watch()
        options = {"resource_version": version, "timeout_seconds": DEADLINE, "field_selector": "metadata.name=w"}
        for event in watcher.stream(self.core.list_namespaced_service_account, self.namespace, **options):
            seen.append([event["type"], event["object"].metadata.labels])
            if event["type"] == "DELETED":
                watcher.stop()
        return seen

    def watched_too_old(self) -> Any:
        """A version that no server has history of any more: told as 410, from which the client lists anew."""
        watcher = watch.Watch()
        try:
            for event in watcher.stream(
                self.core.list_namespaced_service_account, self.namespace, resource_version="1", timeout_seconds=2
            ):
                return event["type"] in ("ADDED", "MODIFIED")
        except ApiException as error:
            return error.status == 410
        return True

    def delete_collection(self) -> Any:
        self.core.delete_collection_namespaced_service_account(self.namespace, label_selector="one in (c,d)")
        return self.listed(label_selector="one")

    def token(self) -> Any:
        spec = client.V1TokenRequestSpec(audiences=[], expiration_seconds=3600)
        told = self.core.create_namespaced_service_account_token(
            "a", self.namespace, client.AuthenticationV1TokenRequest(spec=spec)
        )
        claims = told.status.token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"]

    def rights(self) -> Any:
        attributes = client.V1ResourceAttributes(verb="create", resource="serviceaccounts", namespace=self.namespace)
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        review = client.V1SelfSubjectAccessReview(spec=spec)
        return client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed

    def impersonated(self) -> Any:
        """Another user's rights, who may list accounts and not roles."""
        rule = client.V1PolicyRule(api_groups=[""], resources=["serviceaccounts"], verbs=["list"])
        group = "rbac.authorization.k8s.io"
        metadata = client.V1ObjectMeta(name="jane")
        self.rbac.create_namespaced_role(self.namespace, client.V1Role(metadata=metadata, rules=[rule]))
        role = client.V1RoleRef(api_group=group, kind="Role", name="jane")
        subject = client.RbacV1Subject(api_group=group, kind="User", name="jane")
        bound = client.V1RoleBinding(metadata=metadata, role_ref=role, subjects=[subject])
        self.rbac.create_namespaced_role_binding(self.namespace, bound)
        acting = client.ApiClient(header_name="Impersonate-User", header_value="jane")
        core, rbac = client.CoreV1Api(acting), client.RbacAuthorizationV1Api(acting)
        until(lambda: refused(lambda: core.list_namespaced_service_account(self.namespace)) is None)
        return refused(lambda: rbac.list_namespaced_role(self.namespace))

    def cleanup(self) -> Any:
        self.core.delete_namespace(self.namespace)
        return until(lambda: refused(lambda: self.core.read_namespace(self.namespace)) == [404, "NotFound"])

    # the gateway's own API

    def clusters(self) -> Any:
        group = ("cluster.karpor.io", "v1beta1", "clusters")
        body = {
            "apiVersion": "cluster.karpor.io/v1beta1",
            "kind": "Cluster",
            "metadata": {"name": "from-python"},
            "spec": {"access": {"endpoint": "https://192.0.2.1"}},
        }
        self.objects.create_cluster_custom_object(*group, body)
        changed = self.objects.patch_cluster_custom_object(*group, "from-python", {"spec": {"displayName": "P"}})
        names = [item["metadata"]["name"] for item in self.objects.list_cluster_custom_object(*group)["items"]]
        self.objects.delete_cluster_custom_object(*group, "from-python")
        return [changed["spec"]["displayName"], "from-python" in names]

    def passes(self) -> Any:
        group = ("access.karpor.io", "v1beta1", "passes")
        body = {
            "apiVersion": "access.karpor.io/v1beta1",
            "kind": "Pass",
            "metadata": {"name": "from-python"},
            "spec": {
                "subjects": [{"kind": "User", "name": "jane"}],
                "clusters": {"names": ["prod"]},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
            },
        }
        self.objects.create_cluster_custom_object(*group, body)
        changed = self.objects.patch_cluster_custom_object(*group, "from-python", {"spec": {"suspended": True}})
        bad = refused(lambda: self.objects.patch_cluster_custom_object(*group, "from-python", {"spec": {"rules": 1}}))
        got = self.objects.get_cluster_custom_object(*group, "from-python")
        self.objects.delete_cluster_custom_object(*group, "from-python")
        gone = refused(lambda: self.objects.get_cluster_custom_object(*group, "from-python"))
        return [changed["spec"]["suspended"], bad, got["spec"]["rules"], gone]

    def certificate(self) -> Any:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jane")])
        signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        requests = client.CertificatesV1Api()
        spec = client.V1CertificateSigningRequestSpec(
            request=base64.b64encode(signed.public_bytes(Encoding.PEM)).decode(),
            signer_name="kubernetes.io/kube-apiserver-client",
            usages=["client auth"],
            expiration_seconds=3600,
        )
        metadata = client.V1ObjectMeta(name="from-python")
        body = client.V1CertificateSigningRequest(metadata=metadata, spec=spec)
        made = requests.create_certificate_signing_request(body)
        made.status = client.V1CertificateSigningRequestStatus(
            conditions=[client.V1CertificateSigningRequestCondition(type="Approved", status="True", reason="Test")]
        )
        requests.replace_certificate_signing_request_approval("from-python", made)
        assert until(lambda: requests.read_certificate_signing_request("from-python").status.certificate)
        told = requests.read_certificate_signing_request("from-python").status
        issued = x509.load_pem_x509_certificates(base64.b64decode(told.certificate))[0]
        requests.delete_certificate_signing_request("from-python")
        assert issued.public_key() == key.public_key()
        return [issued.subject.rfc4514_string(), [condition.type for condition in told.conditions]]

    # pods of a member

    def pod(self) -> Any:
        script = "echo started; while read line; do echo heard $line; done; sleep 600"
        container = client.V1Container(name="main", image="busybox", stdin=True, command=["sh", "-c", script])
        body = client.V1Pod(
            metadata=client.V1ObjectMeta(name="p"),
            spec=client.V1PodSpec(containers=[container], restart_policy="Never"),
        )
        self.core.create_namespaced_pod(self.namespace, body)
        watcher = watch.Watch()
        for event in watcher.stream(self.core.list_namespaced_pod, self.namespace, timeout_seconds=DEADLINE):
            if event["object"].status.phase == "Running":
                watcher.stop()
        return self.core.read_namespaced_pod("p", self.namespace).status.phase

    def execute(self) -> Any:
        command = ["sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 7"]
        session = stream(
            self.core.connect_get_namespaced_pod_exec, "p", self.namespace, command=command,
            stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
        )  # fmt: skip
        session.write_stdin("hello\n")
        session.run_forever(timeout=DEADLINE)
        return [session.read_stdout(), session.read_stderr(), session.returncode]

    def attach(self) -> Any:
        session = stream(
            self.core.connect_get_namespaced_pod_attach, "p", self.namespace,
            stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
        )  # fmt: skip
        session.write_stdin("attached\n")
        seen = ""
        while "heard attached\n" not in seen and session.is_open():
            seen += session.read_stdout(timeout=DEADLINE) or ""
        session.close()
        return "heard attached\n" in seen

    def logs(self) -> Any:
        followed = self.core.read_namespaced_pod_log("p", self.namespace, follow=True, _preload_content=False)
        lines: Iterator[bytes] = iter(followed.stream(decode_content=False))
        seen = b""
        while b"heard attached\n" not in seen:
            seen += next(lines)
        followed.close()
        return [seen.split(b"\n")[0].decode(), self.core.read_namespaced_pod_log("p", self.namespace, tail_lines=1)]

    def forward(self) -> Any:
        forwarded = portforward(
            self.core.connect_get_namespaced_pod_portforward, "p", self.namespace, ports=str(self.port)
        )
        seen: bytes = b""
        connection: socket.socket = forwarded.socket(self.port)
        connection.setblocking(True)
        connection.sendall(b"to the pod")
        while len(seen) < len(b"to the pod"):
            seen += connection.recv(64)
        connection.close()
        return [seen.decode(), forwarded.error(self.port)]

    def pod_goes(self) -> Any:
        self.core.delete_namespaced_pod("p", self.namespace, grace_period_seconds=1)
        return until(lambda: refused(lambda: self.core.read_namespaced_pod("p", self.namespace)) == [404, "NotFound"])


def until(holds: Callable[[], bool]) -> bool:
    for _ in range(DEADLINE * 10):
        if holds():
            return True
        threading.Event().wait(0.1)
    return False


def refused(call: Callable[[], Any]) -> Any:
    """How the server refuses; None where it does not."""
    try:
        call()
    except ApiException as error:
        return [error.status, json.loads(error.body)["reason"]]
    return None


EVERYWHERE = (
    "version", "apis", "create", "selectors", "pages", "bad_continue", "conflict", "errors", "patches", "apply",
    "dynamic_client", "watched", "watched_too_old", "delete_collection", "rights", "token",
    "impersonated",
)  # fmt: skip
OWN = ("clusters", "passes", "certificate")
MEMBER = ("pod", "execute", "attach", "logs", "forward", "pod_goes")


def main() -> None:
    kubeconfig, target, namespace, port = sys.argv[1:]
    config.load_kube_config(kubeconfig)
    print(json.dumps({"version": kubernetes.__version__}))
    steps = Steps(namespace, int(port))
    for name in (*EVERYWHERE, *(OWN if target == "own" else MEMBER), "cleanup"):
        try:
            told = {"step": name, "value": getattr(steps, name)()}
        except Exception as error:  # noqa: BLE001  every failure is a line of the transcript
            where = traceback.extract_tb(error.__traceback__)[-1]
            body = getattr(error, "body", "") or ""
            told = {"step": name, "error": f"{type(error).__name__}: {str(error)[:300]} {body[:300]} ({where.name})"}
        print(json.dumps(told), flush=True)


main()
