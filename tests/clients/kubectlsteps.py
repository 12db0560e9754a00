"""What kubectl is asked, in order: on every API, on a member with pods besides, on the gateway's own API besides."""

import base64
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.clients.access import NAMESPACE as NS

from onepass.pki import keys


@dataclass(frozen=True)
class Step:
    """A command as typed, its input, how it ends, and a word of what it prints. `since` is the first minor version of
    kubectl that has it; `oldest` tells what a kubectl before that one prints instead of `has`."""

    typed: str
    has: str = ""
    code: int = 0
    input: str = ""
    since: int = 0
    before: int = 1000  # the first minor version in which it is no longer so
    editor: str = ""  # a sed script for `edit`

    @property
    def arguments(self) -> Sequence[str]:
        return shlex.split(self.typed)


def yaml_of(kind: str, name: str, group: str = "v1", /, **rest: object) -> str:
    """JSON, which is YAML."""
    return json.dumps({"apiVersion": group, "kind": kind, "metadata": {"name": name}} | rest)


def account(name: str = "applied", labels: dict[str, str] | None = None, **rest: object) -> str:
    metadata = {"name": name, "namespace": NS, "labels": labels or {"v": "1"}}
    return yaml_of("ServiceAccount", name, "v1", metadata=metadata, **rest)


RBAC = "rbac.authorization.k8s.io/v1"
ROLE = yaml_of(
    "ClusterRole", "clients-applied", RBAC, rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
)
ROLE2 = ROLE.replace('"get"', '"get", "list"')

DISCOVERY = (
    Step("version", "Server Version"),
    Step("version -o json", '"serverVersion"'),
    Step("api-resources", "serviceaccounts"),
    Step("api-resources -o wide --namespaced=false", "deletecollection"),
    Step("api-resources -o name --sort-by=name", "serviceaccounts"),
    Step("api-resources --api-group=rbac.authorization.k8s.io --no-headers", "rolebindings"),
    Step("api-versions", "rbac.authorization.k8s.io/v1"),
    Step("get --raw /version", "gitVersion"),
    Step("get --raw /api", "v1"),
    Step("get --raw /apis", "APIGroupList"),
    Step("get --raw /api/v1", "serviceaccounts"),
    Step("get --raw /healthz", "ok"),
    Step("get --raw /livez?verbose", "check passed"),
    Step("get --raw /readyz", "ok"),
    Step("get --raw /openapi/v3", "api/v1", since=24),
    Step("get --raw /nosuch", "NotFound", code=1),
    Step("explain serviceaccounts", "automountServiceAccountToken"),
    Step("explain serviceaccounts.metadata.labels", "FIELD"),
    Step("explain clusterroles --recursive", "verbs"),
    Step("explain clusterroles.rules.verbs --api-version=rbac.authorization.k8s.io/v1", "verbs"),
    Step("explain serviceaccounts.nosuch", code=1),
)

FORMS = (
    Step("get sa", "AGE"),
    Step("get sa --no-headers", "a"),
    Step("get sa -o wide", "AGE"),
    Step("get sa a -o yaml", "kind: ServiceAccount"),
    Step("get sa -o json", '"kind": "List"'),
    Step("get sa -o name", "serviceaccount/a\n"),
    Step("get sa a -o jsonpath='{.metadata.name}'", "a"),
    Step("get sa -o jsonpath='{range .items[*]}{.metadata.name}{\"\\n\"}{end}'", "a\nb\n"),
    Step("get sa -o go-template='{{range .items}}{{.metadata.name}} {{end}}'", "a b "),
    Step("get sa -o custom-columns=N:.metadata.name,L:.metadata.labels", "N"),
    Step("get sa --show-labels", "LABELS"),
    Step("get sa -L team", "TEAM"),
    Step("get sa --show-kind", "serviceaccount/a"),
    Step("get sa --sort-by=.metadata.name", "a"),
    Step("get sa -A", "NAMESPACE"),
    Step("get sa --chunk-size=2", "c"),
    Step("get sa --chunk-size=1 -o name", "serviceaccount/c\n"),
    Step("get sa -l team=red", "a"),
    Step("get sa -l 'team in (red,blue),!gone'", "b"),
    Step("get sa -l 'team notin (red)' -o name", "serviceaccount/b\n"),
    Step("get sa -l team==", "No resources found"),
    Step("get sa -l '=='", code=1),
    Step("get sa --field-selector metadata.name=a -o name", "serviceaccount/a\n"),
    Step("get sa --field-selector metadata.name!=a -o name", "serviceaccount/b\n"),
    Step("get sa --field-selector nosuch=a", code=1),
    Step("get sa a b", "b"),
    Step("get sa/a role/r", "role"),
    Step("get sa,role,rolebinding", "rolebinding.rbac.authorization.k8s.io/rb"),
    Step("get serviceaccounts.v1. a", "a"),
    Step("get roles.v1.rbac.authorization.k8s.io r", "r"),
    Step("get ns default -o name", "namespace/default"),
    Step(f"get ns {NS}", "Active"),
    Step("get clusterroles cluster-admin -o yaml", "rules:"),
    Step("get clusterroles clients -o jsonpath='{.rules[0].verbs}'", "get"),
    Step(f"get --raw /api/v1/namespaces/{NS}/serviceaccounts?limit=1", "continue"),
    Step(f"get --raw /api/v1/namespaces/{NS}/serviceaccounts?limit=x", code=1),
    Step("get sa nosuch", "NotFound", code=1),
    Step("get sa nosuch --ignore-not-found"),
    Step("get nosuch", "doesn't have a resource type", code=1),
    Step("describe sa a", "Image pull secrets:"),
    Step(f"describe ns {NS}", "Status:"),
    Step("describe clusterrole clients", "PolicyRule"),
    Step("describe rolebinding rb", "Subjects"),
    Step("describe sa nosuch", code=1),
)

WRITES = (
    Step("label sa a note=x", "labeled"),
    Step("label sa a note=y", "already has a value", code=1),
    Step("label sa a note=y --overwrite", "labeled"),
    Step("label sa a note-", "label"),
    Step("label sa a 'bad key=x'", code=1),
    Step("label sa --all all=yes", "labeled"),
    Step("annotate sa a note=x", "annotated"),
    Step("annotate sa a note-", "annotated"),
    Step('patch sa a -p \'{"secrets":[{"name":"one"}]}\'', "patched"),
    Step('patch sa a -p \'{"secrets":[{"name":"two"}]}\'', "patched"),
    Step("get sa a -o jsonpath='{.secrets[*].name}'", "two"),
    Step('patch sa a --type=merge -p \'{"secrets":[{"name":"three"}],"metadata":{"labels":{"all":null}}}\'', "patched"),
    Step("get sa a -o jsonpath='{.secrets[*].name} {.metadata.labels}'", "three"),
    Step('patch sa a --type=json -p \'[{"op":"replace","path":"/secrets/0/name","value":"four"}]\'', "patched"),
    Step('patch sa a --type=json -p \'[{"op":"test","path":"/metadata/name","value":"z"}]\'', code=1),
    Step('patch sa a --type=json -p \'[{"op":"remove","path":"/nosuch"}]\'', code=1),
    Step("patch sa a --type=merge -p '{}'", "patched (no change)"),
    Step('patch sa a --type=merge -p \'{"metadata":{"labels":{"l":"1"}}}\' --dry-run=server', "patched"),
    Step("patch sa a -p 'no json'", code=1),
    Step("patch sa nosuch --type=merge -p '{}'", "NotFound", code=1),
    Step("apply -f -", "serviceaccount/applied created", input=account()),
    Step("apply -f -", "serviceaccount/applied unchanged", input=account()),
    Step("apply -f -", "serviceaccount/applied configured", input=account(labels={"w": "2"})),
    Step("get sa applied -o jsonpath='{.metadata.labels}'", '{"w":"2"}'),
    Step("apply view-last-applied sa applied", "w:"),
    Step("apply set-last-applied -f -", "configured", input=account(labels={"w": "3"})),
    Step("diff -f -", '"4"', code=1, input=account(labels={"w": "4"})),
    Step("diff -f -", input=account(labels={"w": "2"}, automountServiceAccountToken=None)),
    Step("apply -f - --dry-run=server", "server dry run", input=account(labels={"w": "5"})),
    Step("apply -f - --dry-run=client", "dry run", input=account(labels={"w": "5"})),
    Step("apply -f -", "clients-applied created", input=ROLE),
    Step("apply -f -", "clients-applied configured", input=ROLE2),
    Step("edit sa a", "edited", editor="s/four/five/"),
    Step("edit sa a", "no changes", editor=""),
    Step("get sa a -o jsonpath='{.secrets[*].name}'", "five"),
    Step("replace -f -", "replaced", input=account(labels={"w": "6"})),
    Step("replace --force -f -", "replaced", input=account(labels={"w": "7"})),
    Step("replace -f -", "NotFound", code=1, input=account("nosuch")),
    Step("create -f -", "AlreadyExists", code=1, input=account()),
    Step("create -f - --dry-run=server -o yaml", "kind: ServiceAccount", input=account("dry")),
    Step("create -f - --validate=false", "created", input=account("loose", nosuch=1)),
    Step("create -f - --validate=strict", "unknown field", code=1, input=account("strict", nosuch=1), since=25),
    Step("create -f - --validate=warn", "unknown field", input=account("warned", nosuch=1), since=25),
    Step("create -f -", "unknown field", code=1, input=account("strict", nosuch=1)),
    Step("create -f -", code=1, input=account("Bad_Name")),
    Step("create -f -", code=1, input='{"apiVersion":"v1","kind":"Nosuch","metadata":{"name":"x"}}'),
    Step("create -f -", code=1, input="{"),
    Step("create role r2 --verb=get --resource=serviceaccounts", "created"),
    Step("auth reconcile -f -", "reconciled", input=ROLE),
    Step("delete role r2", "deleted"),
    Step("delete clusterrole clients-applied", "deleted"),
)  # fmt: skip

SERVER_SIDE = (
    Step("apply --server-side -f -", "serverside-applied", input=account("sided")),
    Step("apply --server-side -f - --field-manager=other", "conflict", code=1, input=account("sided", {"v": "2"})),
    Step(
        "apply --server-side -f - --field-manager=other --force-conflicts",
        "serverside",
        input=account("sided", {"v": "2"}),
    ),
    Step(
        "get sa sided -o jsonpath='{.metadata.labels.v} {.metadata.managedFields[*].manager}' --show-managed-fields",
        "2",
        since=21,
    ),
    Step("delete sa sided --cascade=foreground", "deleted", since=20),
)

RIGHTS = (
    Step("auth can-i create serviceaccounts", "yes"),
    Step("auth can-i '*' '*' --all-namespaces", "yes"),
    Step("auth can-i get /version", "yes"),
    Step("auth can-i --list", "Non-Resource URLs"),
)

ENDINGS = (
    Step("wait --for=jsonpath='{.metadata.name}'=a sa/a --timeout=300s", "condition met", since=23),
    Step("wait --for=condition=Ready sa/a --timeout=1s", code=1),
    Step("delete sa b --wait=false", "deleted"),
    Step("wait --for=delete sa/b --timeout=300s", since=21),
    Step("wait --for=delete sa/b --timeout=300s", "no matching resources", code=1, before=21),
    Step("delete sa c --dry-run=server", "dry run"),
    Step("delete sa c --cascade=background", "deleted", since=20),
    Step("delete sa applied --cascade=orphan", "deleted", since=20),
    Step("delete sa loose --grace-period=0 --force", "deleted"),
    Step("delete sa nosuch", "NotFound", code=1),
    Step("delete sa nosuch --ignore-not-found"),
    Step("delete sa -l team=red", "deleted"),
    Step("delete -f -", "NotFound", code=1, input=account()),
    Step("delete rolebinding,role --all", "deleted"),
    Step("delete clusterrole clients", "deleted"),
    Step("delete sa --all", "deleted", since=25),
    Step("get sa -o name --field-selector=metadata.name!=default"),  # which a real member makes anew in a moment
    Step(f"delete ns {NS}", "deleted"),
    Step(f"get ns {NS}", "NotFound", code=1),
)

BEGINNINGS = (
    Step(f"create namespace {NS}", "created"),
    Step(f"create namespace {NS}", "AlreadyExists", code=1),
    Step("create serviceaccount a", "created"),
    Step("create sa b", "created"),
    Step("create sa c", "created"),
    Step("label sa a team=red", "labeled"),
    Step("label sa b c team=blue", "labeled"),
    Step("create role r --verb=get,list --resource=serviceaccounts", "created"),
    Step("create rolebinding rb --role=r --user=jane --serviceaccount=clients:a", "created"),
    Step("create clusterrole clients --verb=get --resource=namespaces", "created"),
)

MEMBER = (
    Step("cluster-info", "<server>"),
    Step("get nodes -o wide", "Ready"),
    Step("describe nodes", "Conditions"),
    Step("create configmap c --from-literal=k=v", "created"),
    Step("create secret generic s --from-literal=k=v", "created"),
    Step("create service clusterip svc --tcp=80:80", "created"),
    Step("get cm,secret,svc", "secret/s"),
    Step("get secret s -o jsonpath='{.data.k}'", "dg=="),
    Step("describe cm c", "k:"),
    Step("describe secret s", "1 bytes"),
    Step("top pods", code=1),
    Step("run p --image=busybox --restart=Never -- sh -c 'echo started; sleep 600'", "created"),
    Step("run p --image=busybox", "AlreadyExists", code=1),
    Step("wait --for=condition=Ready pod/p --timeout=300s", "condition met"),
    Step("get pods", "Running"),
    Step("get pods -o wide", "NODE"),
    Step("get pod p -o jsonpath='{.status.phase}'", "Running"),
    Step("get pods --field-selector status.phase=Running -o name", "pod/p\n"),
    Step("describe pod p --show-events=false", "Containers"),
    Step("logs p", "started"),
    Step("logs p --timestamps --tail=1", "started"),
    Step("logs p -c nosuch", code=1),
    Step("get events -o name --field-selector=type=Nosuch"),
    Step("logs pod/p --all-containers --prefix", "started"),
    Step("exec p -- sh -c 'echo out; echo err >&2; exit 7'", "out", code=7),
    Step("exec -i p -- cat", "both ways", input="both ways"),
    Step("exec p -c nosuch -- id", code=1),
    Step("exec nosuch -- id", "NotFound", code=1),
    Step("label pod p on=member", "labeled"),
    Step("delete pod p --now", "deleted"),
    Step("delete cm,secret,svc --all", "deleted"),
)


# Of a sandbox member, and of a real one.
SANDBOX = (
    Step("get deployments", "doesn't have a resource type", code=1),
    Step("scale deployment/x --replicas=2", code=1),
    Step("rollout status deployment/x", code=1),
)
REAL = (
    Step("create deployment d --image=busybox", "created"),
    Step("scale deployment/d --replicas=2", "scaled"),
    Step("scale deployment/d --replicas=3 --current-replicas=1", code=1),
    Step("get deploy d -o jsonpath='{.spec.replicas}'", "2"),
    Step("get --raw /apis/apps/v1/namespaces/clients/deployments/d/scale", '"replicas":2'),
    Step("set image deployment/d '*=busybox:2'", "updated"),
    Step("set env deployment/d A=B", "updated"),
    Step("rollout pause deployment/d", "paused"),
    Step("rollout resume deployment/d", "resumed"),
    Step("rollout restart deployment/d", "restarted"),
    Step("rollout history deployment/d", "d"),
    Step("rollout status deployment/d --watch=false", "Waiting"),
    Step("autoscale deployment/d --max=3", "autoscaled"),
    Step("expose deployment/d --port=80", "exposed"),
    Step("get all -o name", "deployment.apps/d"),
    Step('patch deploy d --subresource=scale --type=merge -p \'{"spec":{"replicas":1}}\'', "patched", since=24),
    Step("delete deploy,hpa,svc --all", "deleted"),
    Step("create quota q --hard=pods=9", "created"),
    Step("create job j --image=busybox", "created"),
    Step("create cronjob cj --image=busybox --schedule='0 0 * * *'", "created", since=21),
    Step("get jobs,quota", "job.batch/j"),
    Step("delete jobs,quota --all", "deleted"),
    Step("cordon nosuch", code=1),
    Step("apply -k /nosuch", code=1),
    Step("auth can-i list nodes", "yes"),
)

# By the role binding of the beginnings.
IMPERSONATION = (
    Step("get sa -o name --as=jane", "serviceaccount/a\n"),
    Step("get roles --as=jane", "Forbidden", code=1),
    Step("get sa --as=nobody --as-group=none", "Forbidden", code=1),
    Step("auth can-i list serviceaccounts --as=jane", "yes"),
    Step("auth can-i delete serviceaccounts --as=jane", "no", code=1),
)


def request(name: str) -> str:
    """A CSR for a client certificate of jane."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(keys.generate(), hashes.SHA256())
    spec = {
        "request": base64.b64encode(signed.public_bytes(Encoding.PEM)).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
        "expirationSeconds": 3600,
    }
    return yaml_of("CertificateSigningRequest", name, "certificates.k8s.io/v1", spec=spec)


def cluster(name: str, endpoint: str) -> str:
    return yaml_of("Cluster", name, "cluster.karpor.io/v1beta1", spec={"access": {"endpoint": endpoint}})


PASS = yaml_of(
    "Pass",
    "clients-pass",
    "access.karpor.io/v1beta1",
    spec={
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "clusters": {"names": ["clients-made"]},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    },
)

OWN = (
    Step("auth whoami", "own-", since=27),
    Step("auth whoami -o yaml", "own-", since=27),
    Step("create token a --duration=1h", "<token>", since=24),
    Step("create token nosuch", "not found", code=1, since=24),
    Step("create -f -", "created", input=request("clients-yes")),
    Step("create -f -", "created", input=request("clients-no")),
    Step("get csr clients-yes clients-no", "Pending"),
    Step("certificate approve clients-yes", "approved"),
    Step("certificate deny clients-no", "denied"),
    Step("wait --for=condition=Approved csr/clients-yes --timeout=300s", "condition met"),
    Step("wait --for=jsonpath='{.status.certificate}' csr/clients-yes --timeout=300s", "condition met", since=31),
    Step("get csr", "Denied"),
    Step("describe csr clients-yes", "jane"),
    Step("get csr clients-no -o jsonpath='{.status.conditions[*].type}'", "Denied"),
    Step("delete csr clients-yes clients-no", "deleted"),
    Step("apply -f -", "clients-made created", input=cluster("clients-made", "https://192.0.2.1")),
    Step("apply -f -", code=1, input=cluster("clients-bad", "http://192.0.2.1")),
    Step("get clusters clients-made", "clients-made"),
    Step("get cl clients-made -o wide", "clients-made"),
    Step("get cl clients-made -o yaml", "endpoint: https://192.0.2.1"),
    Step("label cl clients-made env=test", "labeled"),
    Step('patch cl clients-made --type=merge -p \'{"spec":{"displayName":"Made"}}\'', "patched"),
    Step("get cl -l env=test -o jsonpath='{.items[*].spec.displayName}'", "Made"),
    Step("describe cl clients-made", "Made"),
    Step("explain clusters.spec.access", "endpoint"),
    Step("explain passes.spec.rules", "verbs"),
    Step("apply -f -", "clients-pass created", input=PASS),
    Step("apply -f -", "clients-pass unchanged", input=PASS),
    Step("get passes clients-pass", "clients-pass"),
    Step("get passes -o yaml", "clients-pass"),
    Step("describe pass clients-pass", "jane"),
    Step("edit pass clients-pass", "edited", editor="s/- get/- list/"),
    Step("get pass clients-pass -o jsonpath='{.spec.rules[0].verbs}'", "list"),
    Step('patch pass clients-pass --type=merge -p \'{"spec":{"suspended":true}}\'', "patched"),
    Step('patch pass clients-pass --type=merge -p \'{"spec":{"rules":"x"}}\'', "Invalid", code=1),
    Step("delete pass/clients-pass cl/clients-made", "deleted"),
    Step("auth can-i create clusters/proxy", "yes"),
    Step("auth can-i list secrets --as=nobody", code=1),
    Step("get ns --as=nobody", code=1),
)

# What is asked by a further credential: a session of every kind of request, without all their variants.
BRIEF = (*BEGINNINGS, *DISCOVERY[:3], *FORMS[::4], *WRITES[:9], ENDINGS[-5], *ENDINGS[-2:])
