// The official JavaScript client on one kubeconfig: `node main.js KUBECONFIG own|member NAMESPACE PORT`.
// Each step is a function; what it returns is printed as a line of JSON, an exception as such. PORT is of an echo server.

import { X509Certificate } from "node:crypto";
import { createRequire } from "node:module";
import { PassThrough, Writable } from "node:stream";
import * as k8s from "@kubernetes/client-node";

const [kubeconfig, target, namespace, port] = process.argv.slice(2);
const DEADLINE = 60_000;
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);
const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;

// What the client ends itself, the watch of an informer and a followed log, fails with this where nobody can catch it.
for (const event of ["unhandledRejection", "uncaughtException"]) {
  process.on(event, (error) => {
    if (error?.name === "AbortError") return;
    console.error(error);
    process.exit(1);
  });
}

// Of jane, by a key that nobody has any more: Node.js itself cannot make one.
const REQUEST = `-----BEGIN CERTIFICATE REQUEST-----
MIHIMHECAQAwDzENMAsGA1UEAwwEamFuZTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABILfJ1RhLSIsmihq4oCBURbgkkVnjmUiUkU14/TaAOB91DLsC0n0WmA//6BZ
kxNAq7DV1Rf6EOesydYk5qKnTEWgADAKBggqhkjOPQQDAgNHADBEAiATuguy9URP
d45jTI4GAGO0YmRhG3LIuELPG705A0NsxwIgOYkQ3fy9duX2A2Lh0zagryReONQw
hd/z9Bf+sFsbB9w=
-----END CERTIFICATE REQUEST-----
`;

const account = (name, labels) => ({ metadata: { name, labels } });
const as = (strategy) => k8s.setHeaderOptions("Content-Type", strategy);

// A writable that keeps what it gets, and a promise for the moment when something is in it.
class Kept extends Writable {
  text = "";
  #waiting = [];
  _write(chunk, _, done) {
    this.text += chunk.toString();
    this.#waiting.forEach((look) => look());
    done();
  }
  has(word) {
    return within(new Promise((resolve) => {
      const look = () => this.text.includes(word) && resolve(this.text);
      this.#waiting.push(look);
      look();
    }), word);
  }
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`waited for ${what}`)), DEADLINE); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function refused(call) {
  try {
    await call();
  } catch (error) {
    return [error.code, JSON.parse(error.body).reason];
  }
  return null;
}

async function gone(read) {
  const until = Date.now() + DEADLINE;
  while (Date.now() < until) {
    const told = await refused(read);
    if (told && told[0] === 404) return true;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return false;
}

async function listed(options) {
  const list = await core.listNamespacedServiceAccount({ namespace, ...options });
  return list.items.map((item) => item.metadata.name).filter((name) => name !== "default").sort();
}

const everywhere = {
  async version() {
    return (await config.makeApiClient(k8s.VersionApi).getCode()).major;
  },
  async create() {
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    for (const name of ["a", "b", "c", "d", "e"]) {
      await core.createNamespacedServiceAccount({ namespace, body: account(name, { one: name }) });
    }
    return listed();
  },
  async selectors() {
    return [await listed({ labelSelector: "one in (a,b)" }), await listed({ fieldSelector: "metadata.name=c" })];
  },
  async pages() {
    let token, count = 0, fits = true;
    do {
      const page = await core.listNamespacedServiceAccount({ namespace, limit: 2, _continue: token });
      fits &&= page.items.length <= 2;
      token = page.metadata._continue;
      count += 1;
    } while (token);
    return [fits, count >= 3];
  },
  async errors() {
    const old = await core.readNamespacedServiceAccount({ name: "a", namespace });
    await core.replaceNamespacedServiceAccount({ name: "a", namespace, body: { ...old, automountServiceAccountToken: false } });
    return [
      await refused(() => core.replaceNamespacedServiceAccount({ name: "a", namespace, body: old })),
      await refused(() => core.readNamespacedServiceAccount({ name: "nosuch", namespace })),
      await refused(() => core.createNamespacedServiceAccount({ namespace, body: account("a") })),
      await refused(() => core.createNamespacedServiceAccount({ namespace, body: account("Bad_Name") })),
    ];
  },
  async patches() {
    const patch = async (strategy, body, options = {}) => {
      const told = await core.patchNamespacedServiceAccount({ name: "b", namespace, body, ...options }, as(strategy));
      return [told.secrets?.map((secret) => secret.name), told.metadata.labels];
    };
    return [
      await patch(k8s.PatchStrategy.StrategicMergePatch, { secrets: [{ name: "x" }] }),
      await patch(k8s.PatchStrategy.StrategicMergePatch, { secrets: [{ name: "y" }] }),
      await patch(k8s.PatchStrategy.MergePatch, { secrets: [{ name: "z" }], metadata: { labels: { one: null } } }),
      await patch(k8s.PatchStrategy.JsonPatch, [{ op: "add", path: "/metadata/labels", value: { json: "yes" } }]),
      await patch(k8s.PatchStrategy.MergePatch, { metadata: { labels: { dry: "run" } } }, { dryRun: "All" }),
    ];
  },
  async apply() {
    const apply = async (fieldManager, value, force) => {
      const body = { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "applied", labels: { v: value } } };
      const told = await core.patchNamespacedServiceAccount(
        { name: "applied", namespace, body, fieldManager, force }, as(k8s.PatchStrategy.ServerSideApply));
      return [told.metadata.labels.v, told.metadata.managedFields.map((field) => field.manager).sort()];
    };
    return [
      await apply("one", "1"),
      await apply("one", "2"),
      await refused(() => apply("two", "3")),
      await apply("two", "3", true),
    ];
  },
  async objectApi() {
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const role = { apiVersion: "rbac.authorization.k8s.io/v1", kind: "Role", metadata: { name: "r", namespace } };
    await objects.create({ ...role, rules: [{ apiGroups: [""], resources: ["pods"], verbs: ["get"] }] });
    const got = await objects.read(role);
    await objects.delete(role);
    return [got.rules, await refused(() => objects.read(role))];
  },
  async watch() {
    const { metadata } = await core.listNamespacedServiceAccount({ namespace });
    await core.createNamespacedServiceAccount({ namespace, body: account("w") });
    await core.deleteNamespacedServiceAccount({ name: "w", namespace });
    const seen = [];
    let controller;
    await within(new Promise((resolve, reject) => {
      new k8s.Watch(config).watch(accounts,
        { resourceVersion: metadata.resourceVersion, fieldSelector: "metadata.name=w", allowWatchBookmarks: true },
        (type) => { if (type !== "BOOKMARK" && seen.push(type) === 2) resolve(); },
        (error) => error && reject(error)).then((started) => { controller = started; }, reject);
    }), "two events");
    controller.abort();
    return seen;
  },
  async informer() {
    const informer = k8s.makeInformer(config, accounts, () => core.listNamespacedServiceAccount({ namespace }));
    const seen = [];
    let look = () => {};
    for (const verb of ["add", "update", "delete"]) {
      informer.on(verb, (object) => {
        if (object.metadata.name === "informed") { seen.push([verb, object.metadata.labels ?? null]); look(); }
      });
    }
    informer.on("error", (error) => { throw error; });
    const count = (wanted) => within(new Promise((resolve) => {
      look = () => seen.length >= wanted && resolve();
      look();
    }), `${wanted} events`);
    await informer.start();
    const cached = informer.list(namespace).map((item) => item.metadata.name).includes("a");
    await core.createNamespacedServiceAccount({ namespace, body: account("informed") });
    await count(1);
    const body = { metadata: { labels: { changed: "yes" } } };
    await core.patchNamespacedServiceAccount({ name: "informed", namespace, body }, as(k8s.PatchStrategy.MergePatch));
    await count(2);
    await core.deleteNamespacedServiceAccount({ name: "informed", namespace });
    await count(3);
    await informer.stop();
    return [cached, seen];
  },
  async token() {
    const body = { spec: { audiences: [], expirationSeconds: 3600 } };
    const told = await core.createNamespacedServiceAccountToken({ name: "a", namespace, body });
    return JSON.parse(Buffer.from(told.status.token.split(".")[1], "base64url").toString()).sub;
  },
  async deleteCollection() {
    await core.deleteCollectionNamespacedServiceAccount({ namespace, labelSelector: "one in (c,d)" });
    return listed({ labelSelector: "one" });
  },
};

const own = {
  async clusters() {
    const objects = config.makeApiClient(k8s.CustomObjectsApi);
    const kind = { group: "cluster.karpor.io", version: "v1beta1", plural: "clusters" };
    const spec = { access: { endpoint: "https://192.0.2.1" } };
    const body = { apiVersion: "cluster.karpor.io/v1beta1", kind: "Cluster", metadata: { name: "from-javascript" }, spec };
    await objects.createClusterCustomObject({ ...kind, body });
    const list = await objects.listClusterCustomObject(kind);
    await objects.deleteClusterCustomObject({ ...kind, name: "from-javascript" });
    return list.items.map((item) => item.metadata.name).includes("from-javascript");
  },
};

Object.assign(own, {
  async passes() {
    const objects = config.makeApiClient(k8s.CustomObjectsApi);
    const kind = { group: "access.karpor.io", version: "v1beta1", plural: "passes" };
    const name = "from-javascript";
    const spec = {
      subjects: [{ kind: "User", name: "jane" }],
      clusters: { names: ["prod"] },
      rules: [{ apiGroups: [""], resources: ["pods"], verbs: ["get"] }],
    };
    await objects.createClusterCustomObject({ ...kind, body: { apiVersion: "access.karpor.io/v1beta1", kind: "Pass", metadata: { name }, spec } });
    const patch = { ...kind, name, body: { spec: { suspended: true } } };
    const changed = await objects.patchClusterCustomObject(patch, as(k8s.PatchStrategy.MergePatch));
    await objects.deleteClusterCustomObject({ ...kind, name });
    return [changed.spec.suspended, await refused(() => objects.getClusterCustomObject({ ...kind, name }))];
  },
  async certificate() {
    const requests = config.makeApiClient(k8s.CertificatesV1Api);
    const name = "from-javascript";
    const spec = {
      request: Buffer.from(REQUEST).toString("base64"),
      signerName: "kubernetes.io/kube-apiserver-client",
      usages: ["client auth"],
      expirationSeconds: 3600,
    };
    const body = await requests.createCertificateSigningRequest({ body: { metadata: { name }, spec } });
    body.status = { conditions: [{ type: "Approved", status: "True", reason: "Test" }] };
    await requests.replaceCertificateSigningRequestApproval({ name, body });
    const until = Date.now() + DEADLINE;
    let certificate;
    do {
      certificate = (await requests.readCertificateSigningRequest({ name })).status.certificate;
    } while (!certificate && Date.now() < until);
    await requests.deleteCertificateSigningRequest({ name });
    return new X509Certificate(Buffer.from(certificate, "base64")).subject;
  },
});

const member = {
  async pod() {
    const command = ["sh", "-c", "echo started; while read line; do echo heard $line; done; sleep 600"];
    const containers = [{ name: "main", image: "busybox", stdin: true, command }];
    await core.createNamespacedPod({ namespace, body: { metadata: { name: "p" }, spec: { containers, restartPolicy: "Never" } } });
    const until = Date.now() + DEADLINE;
    let phase;
    do {
      phase = (await core.readNamespacedPod({ name: "p", namespace })).status.phase;
    } while (phase !== "Running" && Date.now() < until);
    return phase;
  },
  async exec() {
    const [out, err, input] = [new Kept(), new Kept(), new PassThrough()];
    const command = ["sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 7"];
    const status = await within(new Promise((resolve, reject) => {
      new k8s.Exec(config).exec(namespace, "p", "main", command, out, err, input, false, resolve).catch(reject);
      input.write("hello\n");
    }), "the status");
    return [out.text, err.text, status.status, status.reason, status.details.causes[0].message];
  },
  async attach() {
    const [out, input] = [new Kept(), new PassThrough()];
    const socket = await new k8s.Attach(config).attach(namespace, "p", "main", out, null, input, false);
    input.write("attached\n");
    await out.has("heard attached\n");
    socket.close();
    return true;
  },
  async log() {
    const out = new Kept();
    const controller = await new k8s.Log(config).log(namespace, "p", "main", out, { follow: true });
    const text = await out.has("heard attached\n");
    controller.abort();
    return [text.split("\n")[0], await core.readNamespacedPodLog({ name: "p", namespace, tailLines: 1 })];
  },
  async portForward() {
    const [out, err, input] = [new Kept(), new Kept(), new PassThrough()];
    const socket = await new k8s.PortForward(config).portForward(namespace, "p", [Number(port)], out, err, input);
    input.write("to the pod");
    const text = await out.has("to the pod");
    (typeof socket === "function" ? socket() : socket).close();
    return [text, err.text];
  },
  async podGoes() {
    await core.deleteNamespacedPod({ name: "p", namespace, gracePeriodSeconds: 1 });
    return gone(() => core.readNamespacedPod({ name: "p", namespace }));
  },
};

const last = {
  async cleanup() {
    await core.deleteNamespace({ name: namespace });
    return gone(() => core.readNamespace({ name: namespace }));
  },
};

const { version } = createRequire(import.meta.url)("./node_modules/@kubernetes/client-node/package.json");
console.log(JSON.stringify({ version }));
for (const [step, does] of Object.entries({ ...everywhere, ...(target === "own" ? own : member), ...last })) {
  try {
    console.log(JSON.stringify({ step, value: await does() }));
  } catch (error) {
    console.log(JSON.stringify({ step, error: `${error}`.slice(0, 600) }));
  }
}
process.exit(0);
