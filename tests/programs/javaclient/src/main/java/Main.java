import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.reflect.TypeToken;
import io.kubernetes.client.Attach;
import io.kubernetes.client.Exec;
import io.kubernetes.client.PodLogs;
import io.kubernetes.client.PortForward;
import io.kubernetes.client.custom.V1Patch;
import io.kubernetes.client.informer.ResourceEventHandler;
import io.kubernetes.client.informer.SharedInformerFactory;
import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.openapi.ApiException;
import io.kubernetes.client.openapi.apis.CoreV1Api;
import io.kubernetes.client.openapi.apis.VersionApi;
import io.kubernetes.client.openapi.models.AuthenticationV1TokenRequest;
import io.kubernetes.client.openapi.models.V1Container;
import io.kubernetes.client.openapi.models.V1Namespace;
import io.kubernetes.client.openapi.models.V1ObjectMeta;
import io.kubernetes.client.openapi.models.V1ObjectReference;
import io.kubernetes.client.openapi.models.V1Pod;
import io.kubernetes.client.openapi.models.V1PodSpec;
import io.kubernetes.client.openapi.models.V1ServiceAccount;
import io.kubernetes.client.openapi.models.V1ServiceAccountList;
import io.kubernetes.client.openapi.models.V1TokenRequestSpec;
import io.kubernetes.client.util.ClientBuilder;
import io.kubernetes.client.util.KubeConfig;
import io.kubernetes.client.util.PatchUtils;
import io.kubernetes.client.util.Watch;
import io.kubernetes.client.util.generic.dynamic.DynamicKubernetesApi;
import io.kubernetes.client.util.generic.dynamic.DynamicKubernetesObject;
import java.io.FileReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/**
 * The official Java client on one kubeconfig: {@code java Main KUBECONFIG own|member NAMESPACE PORT}.
 *
 * <p>Each step is a method; what it returns is printed as a line of JSON, an exception as such. PORT is of an echo server.
 */
public final class Main {
  private static final int DEADLINE = 60;
  private static final Gson GSON = new GsonBuilder().serializeNulls().create();

  private final ApiClient client;
  private final CoreV1Api core;
  private final String namespace;
  private final int port;

  private interface Call {
    void run() throws Exception;
  }

  private Main(ApiClient client, String namespace, int port) {
    this.client = client;
    this.core = new CoreV1Api(client);
    this.namespace = namespace;
    this.port = port;
  }

  public static void main(String[] arguments) throws Exception {
    System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "off");
    ApiClient client;
    try (FileReader file = new FileReader(arguments[0])) {
      client = ClientBuilder.kubeconfig(KubeConfig.loadKubeConfig(file)).build();
    }
    // A watch stays open longer than the client waits for an answer by itself.
    client.setHttpClient(client.getHttpClient().newBuilder().readTimeout(Duration.ZERO).build());
    Main main = new Main(client, arguments[2], Integer.parseInt(arguments[3]));
    say(Map.of("version", CoreV1Api.class.getProtectionDomain().getCodeSource().getLocation().getPath()
        .replaceFirst(".*client-java-api-(.*)\\.jar", "$1")));
    Map<String, Callable<Object>> steps = main.everywhere();
    steps.putAll(arguments[1].equals("own") ? main.own() : main.member());
    steps.put("cleanup", main::cleanup);
    boolean failed = false;
    for (Map.Entry<String, Callable<Object>> step : steps.entrySet()) {
      if (failed && !step.getKey().equals("cleanup")) {
        continue; // each stands on those before it
      }
      boolean before = failed;
      failed = true;
      try {
        Map<String, Object> told = new LinkedHashMap<>(Map.of("step", step.getKey()));
        told.put("value", step.getValue().call());
        say(told);
        failed = before;
      } catch (ApiException error) {
        say(Map.of("step", step.getKey(), "error", error.getCode() + ": " + error.getResponseBody() + error.getMessage()));
      } catch (Exception error) {
        say(Map.of("step", step.getKey(), "error", error.toString()));
      }
    }
    System.exit(0);
  }

  private static void say(Object line) {
    System.out.println(GSON.toJson(line));
  }

  private Map<String, Callable<Object>> everywhere() {
    Map<String, Callable<Object>> steps = new LinkedHashMap<>();
    steps.put("version", () -> new VersionApi(client).getCode().execute().getMajor());
    steps.put("create", this::create);
    steps.put("selectors", () -> List.of(
        names(core.listNamespacedServiceAccount(namespace).labelSelector("one in (a,b)").execute()),
        names(core.listNamespacedServiceAccount(namespace).fieldSelector("metadata.name=c").execute())));
    steps.put("pages", this::pages);
    steps.put("errors", this::errors);
    steps.put("patches", this::patches);
    steps.put("apply", this::apply);
    steps.put("dynamic", this::dynamic);
    steps.put("watch", this::watch);
    steps.put("informer", this::informer);
    steps.put("token", this::token);
    return steps;
  }

  private Map<String, Callable<Object>> own() {
    return Map.of("clusters", this::clusters);
  }

  private Map<String, Callable<Object>> member() {
    Map<String, Callable<Object>> steps = new LinkedHashMap<>();
    steps.put("pod", this::pod);
    steps.put("exec", this::exec);
    steps.put("attach", this::attach);
    steps.put("logs", this::logs);
    steps.put("portForward", this::portForward);
    steps.put("podGoes", () -> {
      core.deleteNamespacedPod("p", namespace).gracePeriodSeconds(1).execute();
      return gone(() -> core.readNamespacedPod("p", namespace).execute());
    });
    return steps;
  }

  private static V1ServiceAccount account(String name) {
    return new V1ServiceAccount().metadata(new V1ObjectMeta().name(name).labels(Map.of("one", name)));
  }

  private static List<String> names(V1ServiceAccountList list) {
    return list.getItems().stream().map(item -> item.getMetadata().getName())
        .filter(name -> !name.equals("default")).sorted().collect(Collectors.toList());
  }

  private static Object refused(Call call) throws Exception {
    try {
      call.run();
    } catch (ApiException error) {
      JsonObject status = JsonParser.parseString(error.getResponseBody()).getAsJsonObject();
      return Arrays.asList(error.getCode(), status.get("reason").getAsString());
    }
    return null;
  }

  private static boolean gone(Call read) throws Exception {
    for (int tries = 0; tries < DEADLINE * 10; tries++) {
      if (Arrays.asList(404, "NotFound").equals(refused(read))) {
        return true;
      }
      Thread.sleep(100);
    }
    return false;
  }

  /** What comes up to and with the word. */
  private static String until(InputStream stream, String word) throws IOException {
    StringBuilder seen = new StringBuilder();
    byte[] chunk = new byte[4096];
    while (seen.indexOf(word) < 0) {
      int count = stream.read(chunk);
      if (count < 0) {
        throw new IOException("waited for " + word + ", got " + seen);
      }
      seen.append(new String(chunk, 0, count, StandardCharsets.UTF_8));
    }
    return seen.toString();
  }

  private Object create() throws ApiException {
    core.createNamespace(new V1Namespace().metadata(new V1ObjectMeta().name(namespace))).execute();
    for (String name : List.of("a", "b", "c", "d", "e")) {
      core.createNamespacedServiceAccount(namespace, account(name)).execute();
    }
    return names(core.listNamespacedServiceAccount(namespace).execute());
  }

  private Object pages() throws ApiException {
    String token = null;
    int count = 0;
    boolean fits = true;
    do {
      V1ServiceAccountList page = core.listNamespacedServiceAccount(namespace).limit(2)._continue(token).execute();
      fits &= page.getItems().size() <= 2;
      token = page.getMetadata().getContinue();
      count++;
    } while (token != null && !token.isEmpty());
    return List.of(fits, count >= 3);
  }

  private Object errors() throws Exception {
    V1ServiceAccount old = core.readNamespacedServiceAccount("a", namespace).execute();
    V1ServiceAccount changed = core.readNamespacedServiceAccount("a", namespace).execute().automountServiceAccountToken(false);
    core.replaceNamespacedServiceAccount("a", namespace, changed).execute();
    return List.of(
        refused(() -> core.replaceNamespacedServiceAccount("a", namespace, old).execute()),
        refused(() -> core.readNamespacedServiceAccount("nosuch", namespace).execute()),
        refused(() -> core.createNamespacedServiceAccount(namespace, account("a")).execute()),
        refused(() -> core.createNamespacedServiceAccount(namespace, account("Bad_Name")).execute()));
  }

  private Object patch(String format, String body) throws ApiException {
    V1ServiceAccount told = PatchUtils.patch(V1ServiceAccount.class,
        () -> core.patchNamespacedServiceAccount("b", namespace, new V1Patch(body)).buildCall(null), format, client);
    List<String> secrets = told.getSecrets() == null ? null
        : told.getSecrets().stream().map(V1ObjectReference::getName).collect(Collectors.toList());
    return Arrays.asList(secrets, told.getMetadata().getLabels());
  }

  private Object patches() throws ApiException {
    return List.of(
        patch(V1Patch.PATCH_FORMAT_STRATEGIC_MERGE_PATCH, "{\"secrets\":[{\"name\":\"x\"}]}"),
        patch(V1Patch.PATCH_FORMAT_STRATEGIC_MERGE_PATCH, "{\"secrets\":[{\"name\":\"y\"}]}"),
        patch(V1Patch.PATCH_FORMAT_JSON_MERGE_PATCH, "{\"secrets\":[{\"name\":\"z\"}]}"),
        patch(V1Patch.PATCH_FORMAT_JSON_PATCH, "[{\"op\":\"add\",\"path\":\"/metadata/labels/json\",\"value\":\"yes\"}]"));
  }

  private Object apply(String manager, String value, boolean force) throws ApiException {
    String body = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: applied\n  labels:\n    v: '" + value + "'\n";
    V1ServiceAccount told = PatchUtils.patch(V1ServiceAccount.class,
        () -> core.patchNamespacedServiceAccount("applied", namespace, new V1Patch(body)).fieldManager(manager).force(force)
            .buildCall(null), V1Patch.PATCH_FORMAT_APPLY_YAML, client);
    return Arrays.asList(told.getMetadata().getLabels(),
        told.getMetadata().getManagedFields().stream().map(field -> field.getManager()).sorted().collect(Collectors.toList()));
  }

  private Object apply() throws Exception {
    return Arrays.asList(
        apply("one", "1", false), refused(() -> apply("two", "2", false)), apply("two", "2", true));
  }

  private Object dynamic() throws ApiException {
    DynamicKubernetesApi roles = new DynamicKubernetesApi("rbac.authorization.k8s.io", "v1", "roles", client);
    JsonObject role = JsonParser.parseString("{\"apiVersion\":\"rbac.authorization.k8s.io/v1\",\"kind\":\"Role\","
        + "\"metadata\":{\"name\":\"r\",\"namespace\":\"" + namespace + "\"},"
        + "\"rules\":[{\"apiGroups\":[\"\"],\"resources\":[\"pods\"],\"verbs\":[\"get\"]}]}").getAsJsonObject();
    roles.create(new DynamicKubernetesObject(role)).throwsApiException();
    JsonObject got = roles.get(namespace, "r").throwsApiException().getObject().getRaw();
    roles.delete(namespace, "r").throwsApiException();
    return Arrays.asList(got.get("rules"), roles.get(namespace, "r").getHttpStatusCode());
  }

  private Object watch() throws Exception {
    String version = core.listNamespacedServiceAccount(namespace).execute().getMetadata().getResourceVersion();
    core.createNamespacedServiceAccount(namespace, account("w")).execute();
    core.deleteNamespacedServiceAccount("w", namespace).execute();
    List<String> seen = new ArrayList<>();
    try (Watch<V1ServiceAccount> watch = Watch.createWatch(client,
        core.listNamespacedServiceAccount(namespace).watch(true).resourceVersion(version).timeoutSeconds(DEADLINE)
            .fieldSelector("metadata.name=w").buildCall(null),
        new TypeToken<Watch.Response<V1ServiceAccount>>() {}.getType())) {
      for (Watch.Response<V1ServiceAccount> event : watch) {
        seen.add(event.type + " " + event.object.getMetadata().getName());
        if (event.type.equals("DELETED")) {
          break;
        }
      }
    }
    return seen;
  }

  private Object informer() throws Exception {
    BlockingQueue<String> events = new LinkedBlockingQueue<>();
    SharedInformerFactory factory = new SharedInformerFactory(client);
    var informer = factory.sharedIndexInformerFor(
        parameters -> core.listNamespacedServiceAccount(namespace).watch(parameters.watch)
            .resourceVersion(parameters.resourceVersion).timeoutSeconds(parameters.timeoutSeconds).buildCall(null),
        V1ServiceAccount.class, V1ServiceAccountList.class);
    informer.addEventHandler(new ResourceEventHandler<V1ServiceAccount>() {
      private void tell(String what, V1ServiceAccount object) {
        if (object.getMetadata().getName().equals("informed")) {
          events.add(what);
        }
      }

      @Override
      public void onAdd(V1ServiceAccount object) {
        tell("add", object);
      }

      @Override
      public void onUpdate(V1ServiceAccount old, V1ServiceAccount object) {
        tell("update", object);
      }

      @Override
      public void onDelete(V1ServiceAccount object, boolean unknown) {
        tell("delete", object);
      }
    });
    factory.startAllRegisteredInformers();
    boolean cached = false;
    for (int tries = 0; tries < DEADLINE * 10 && !cached; tries++) {
      Thread.sleep(100);
      cached = informer.hasSynced() && informer.getIndexer().getByKey(namespace + "/a") != null;
    }
    List<String> seen = new ArrayList<>();
    V1ServiceAccount informed = core.createNamespacedServiceAccount(namespace, account("informed")).execute();
    seen.add(events.poll(DEADLINE, TimeUnit.SECONDS));
    informed.getMetadata().putLabelsItem("changed", "yes");
    core.replaceNamespacedServiceAccount("informed", namespace, informed).execute();
    seen.add(events.poll(DEADLINE, TimeUnit.SECONDS));
    core.deleteNamespacedServiceAccount("informed", namespace).execute();
    seen.add(events.poll(DEADLINE, TimeUnit.SECONDS));
    factory.stopAllRegisteredInformers();
    return List.of(cached, seen);
  }

  private Object token() throws ApiException {
    AuthenticationV1TokenRequest request =
        new AuthenticationV1TokenRequest().spec(new V1TokenRequestSpec().audiences(List.of()).expirationSeconds(3600L));
    String token = core.createNamespacedServiceAccountToken("a", namespace, request).execute().getStatus().getToken();
    String claims = new String(Base64.getUrlDecoder().decode(token.split("\\.")[1]), StandardCharsets.UTF_8);
    return JsonParser.parseString(claims).getAsJsonObject().get("sub").getAsString();
  }

  private Object clusters() throws ApiException {
    DynamicKubernetesApi clusters = new DynamicKubernetesApi("cluster.karpor.io", "v1beta1", "clusters", client);
    JsonObject cluster = JsonParser.parseString("{\"apiVersion\":\"cluster.karpor.io/v1beta1\",\"kind\":\"Cluster\","
        + "\"metadata\":{\"name\":\"from-java\"},\"spec\":{\"access\":{\"endpoint\":\"https://192.0.2.1\"}}}").getAsJsonObject();
    clusters.create(new DynamicKubernetesObject(cluster)).throwsApiException();
    boolean there = clusters.list().throwsApiException().getObject().getItems().stream()
        .anyMatch(item -> item.getMetadata().getName().equals("from-java"));
    clusters.delete("from-java").throwsApiException();
    return there;
  }

  private Object pod() throws Exception {
    V1Container container = new V1Container().name("main").image("busybox").stdin(true)
        .command(List.of("sh", "-c", "echo started; while read line; do echo heard $line; done; sleep 600"));
    // The client sends an empty `overhead` by itself, which kube-apiserver refuses.
    V1PodSpec spec = new V1PodSpec().containers(List.of(container)).restartPolicy("Never").overhead(null);
    core.createNamespacedPod(namespace, new V1Pod().metadata(new V1ObjectMeta().name("p")).spec(spec)).execute();
    String phase = "";
    for (int tries = 0; tries < DEADLINE * 10 && !phase.equals("Running"); tries++) {
      Thread.sleep(100);
      phase = core.readNamespacedPod("p", namespace).execute().getStatus().getPhase();
    }
    return phase;
  }

  private Object exec() throws Exception {
    String[] command = {"sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 7"};
    Process process = new Exec(client).exec(namespace, "p", command, "main", true, false);
    OutputStream input = process.getOutputStream();
    // The client gives no stream of a command that has ended, which this one does only after its line.
    InputStream output = process.getInputStream();
    InputStream errors = process.getErrorStream();
    input.write("hello\n".getBytes(StandardCharsets.UTF_8));
    input.flush();
    String out = until(output, "got hello\n");
    String err = until(errors, "err\n");
    process.waitFor(DEADLINE, TimeUnit.SECONDS);
    int code = process.exitValue();
    process.destroy();
    return List.of(out, err, code);
  }

  private Object attach() throws Exception {
    Attach.ConnectionBuilder builder = new Attach(client).newConnectionBuilder(namespace, "p").setContainer("main")
        .setStdin(true).setStdout(true).setStderr(true).setTty(false);
    try (Attach.AttachResult attached = builder.connect()) {
      attached.getStandardInputStream().write("attached\n".getBytes(StandardCharsets.UTF_8));
      attached.getStandardInputStream().flush();
      return until(attached.getStandardOutputStream(), "heard attached\n").endsWith("heard attached\n");
    }
  }

  private Object logs() throws Exception {
    try (InputStream stream = new PodLogs(client).streamNamespacedPodLog(namespace, "p", "main")) {
      return until(stream, "heard attached\n").split("\n")[0];
    }
  }

  private Object portForward() throws Exception {
    PortForward.PortForwardResult forwarded = new PortForward(client).forward(namespace, "p", List.of(port));
    OutputStream out = forwarded.getOutboundStream(port);
    out.write("to the pod".getBytes(StandardCharsets.UTF_8));
    out.flush();
    String seen = until(forwarded.getInputStream(port), "to the pod");
    forwarded.close();
    return seen;
  }

  private Object cleanup() throws Exception {
    core.deleteNamespace(namespace).execute();
    return gone(() -> core.readNamespace(namespace).execute());
  }
}
