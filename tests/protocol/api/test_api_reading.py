"""Reads: representations, discovery, OpenAPI, health, and what is refused before anything is read."""

import gzip
import re

import pytest
import yaml
from tests.protocol.api.conftest import Api

from onepass.api.meta import Object

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIALS = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@pytest.fixture
async def robot(api: Api) -> Object:
    return await api.make(ACCOUNTS, {"metadata": {"name": "robot", "labels": {"a": "b"}}})


async def test_an_object_is_shown_as_it_is_asked_for(api: Api, robot: Object) -> None:
    path = f"{ACCOUNTS}/robot"
    assert await api.get(path) == robot
    written = await api.send("GET", path, headers={"accept": "application/yaml"})
    assert written.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(written.text)["metadata"]["name"] == "robot"
    partial = await api.get(path, accept=PARTIAL)
    assert (partial["kind"], partial["metadata"]) == ("PartialObjectMetadata", robot["metadata"])
    table = await api.get(path, accept=TABLE)
    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Age"]  # type: ignore[index, union-attr, call-overload]
    assert (await api.send("GET", path, headers={"accept": "text/html"})).status_code == 406
    assert (await api.send("GET", path, headers={"accept": PARTIALS})).status_code == 406


@pytest.mark.parametrize(("include", "kind"), [("", "PartialObjectMetadata"), ("Object", "ServiceAccount")])
async def test_rows_carry_as_much_of_the_object_as_is_asked(api: Api, robot: Object, include: str, kind: str) -> None:
    rows = (await api.get(f"{ACCOUNTS}?includeObject={include}", accept=TABLE))["rows"]
    assert [row["object"]["kind"] for row in rows] == [kind]  # type: ignore[union-attr, index, call-overload]
    bare = (await api.get(f"{ACCOUNTS}?includeObject=None", accept=TABLE))["rows"]
    assert [row["object"] for row in bare] == [None]  # type: ignore[union-attr, index, call-overload]
    odd = await api.send("GET", f"{ACCOUNTS}?includeObject=Half", headers={"accept": TABLE})
    assert odd.status_code == 400


async def test_a_list_is_paged_and_selected(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.make(ACCOUNTS, {"metadata": {"name": name, "labels": {"odd": str(name != "b")}}})
    first = (await api.send("GET", f"{ACCOUNTS}?limit=2")).json()
    assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 1
    assert not first["items"][0].keys() & {"apiVersion", "kind"}
    rest = await api.send("GET", f"{ACCOUNTS}?limit=2&continue={first['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in rest.json()["items"]] == ["c"]
    assert "continue" not in rest.json()["metadata"]
    odd = (await api.send("GET", f"{ACCOUNTS}?labelSelector=odd%3DTrue")).json()
    assert [item["metadata"]["name"] for item in odd["items"]] == ["a", "c"]
    named = (await api.send("GET", f"{ACCOUNTS}?fieldSelector=metadata.name%3Dc")).json()
    assert [item["metadata"]["name"] for item in named["items"]] == ["c"]
    names = await api.get(ACCOUNTS, accept=PARTIALS)
    assert names["kind"] == "PartialObjectMetadataList"
    assert {item["kind"] for item in names["items"]} == {"PartialObjectMetadata"}  # type: ignore[union-attr, index, call-overload]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v2/namespaces", 404),
        ("GET", "/apis/nothing/v1/namespaces", 404),
        ("GET", "/nothing", 404),
        ("GET", f"{ACCOUNTS}/nobody", 404),
        ("GET", f"{ACCOUNTS}/robot/nothing", 404),
        ("GET", f"{ACCOUNTS}/robot/status", 404),
        ("POST", f"{ACCOUNTS}/robot/token/more", 404),
        ("GET", "/api/v1/serviceaccounts/robot", 404),
        ("GET", "/api/v1/watch/namespaces", 404),
        ("GET", "/api/v1/namespaces/default/namespaces", 404),
        ("GET", "/apis/cluster.karpor.io/v1beta1/namespaces/default/clusters", 404),
        ("GET", "/apis/cluster.karpor.io/v1beta1/clusters/", 404),
        ("GET", f"{ACCOUNTS}/robot/token", 405),
        ("POST", "/api/v1/serviceaccounts", 405),
        ("DELETE", "/api/v1/serviceaccounts", 405),
        ("POST", f"{ACCOUNTS}/robot", 405),
        ("PUT", ACCOUNTS, 405),
        ("PATCH", ACCOUNTS, 405),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 405),
        ("POST", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", 405),
        ("POST", "/api/v1/namespaces/default/status", 405),
        ("DELETE", "/api/v1/namespaces/default/status", 405),
        ("OPTIONS", ACCOUNTS, 405),
        ("BREW", ACCOUNTS, 400),
        ("POST", "/version", 404),
        ("DELETE", "/apis", 404),
        ("GET", "/api/v1/namespaces/default%2Fserviceaccounts", 400),
        ("GET", "/api/v1//namespaces", 400),
        ("GET", "/api/v1/namespaces/a;b", 400),
        ("GET", f"{ACCOUNTS}?labelSelector=%21%21", 400),
        ("GET", f"{ACCOUNTS}?fieldSelector=spec.colour%3Dx", 400),
        ("GET", f"{ACCOUNTS}?limit=many", 400),
        ("GET", f"{ACCOUNTS}?continue=garbage", 400),
        ("GET", f"{ACCOUNTS}?resourceVersion=latest", 400),
    ],
)
async def test_what_is_not_there_is_refused_with_a_status(api: Api, method: str, path: str, code: int) -> None:
    answer = await api.send(method, path)
    if (method, code) == ("BREW", 400):  # the HTTP parser refuses it before us
        assert answer.status_code == 400
        return
    assert answer.status_code == code, answer.text
    told = answer.json()
    assert (told["kind"], told["status"], told["code"]) == ("Status", "Failure", code)
    assert told["message"]


async def test_the_root_tells_the_paths_that_lead_somewhere(api: Api) -> None:
    paths = (await api.get("/"))["paths"]
    assert isinstance(paths, list)
    assert {"/api/v1", "/apis/cluster.karpor.io/v1beta1", "/openapi/v2", "/readyz", "/version"} <= {*map(str, paths)}
    for path in map(str, paths):
        assert (await api.send("GET", path)).status_code == 200, path
    assert (await api.send("GET", "/", user="bob")).status_code == 403


async def test_the_phase_of_a_namespace_selects_it_and_is_the_servers(api: Api) -> None:
    for phase, there in (("Active", True), ("Terminating", False)):
        found = (await api.get(f"/api/v1/namespaces?fieldSelector=status.phase%3D{phase}"))["items"]
        assert bool(found) is there
    changed: Object = {"status": {"phase": "Terminating"}}
    merge = {"content-type": "application/merge-patch+json"}
    refused = await api.send("PATCH", "/api/v1/namespaces/default/status", changed, headers=merge)
    assert (refused.status_code, refused.json()["details"]["causes"][0]["field"]) == (422, "status.Phase")


async def test_discovery_has_two_forms_that_agree(api: Api) -> None:
    old = (await api.get("/api/v1"))["resources"]
    token = {"name": "serviceaccounts/token", "group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}
    assert {**token, "singularName": "", "namespaced": True, "verbs": ["create"]} in old  # type: ignore[operator]
    groups = await api.get("/apis")
    names = [group["name"] for group in groups["groups"]]  # type: ignore[union-attr, index, call-overload]
    answer = await api.send("GET", "/apis", headers={"accept": f"{AGGREGATED},application/json"})
    assert answer.headers["content-type"] == AGGREGATED
    assert [item["metadata"]["name"] for item in answer.json()["items"]] == names
    for item in answer.json()["items"]:
        for version in item["versions"]:
            document = await api.get(f"/apis/{item['metadata']['name']}/{version['version']}")
            whole = {entry["name"] for entry in document["resources"]}  # type: ignore[union-attr, index, call-overload]
            parts = {
                f"{entry['resource']}/{part['subresource']}"
                for entry in version["resources"]
                for part in entry.get("subresources", [])
            }
            assert whole == {entry["resource"] for entry in version["resources"]} | parts
    again = await api.send("GET", "/apis", headers={"accept": AGGREGATED, "if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await api.get("/apis/cluster.karpor.io"))["preferredVersion"] == {
        "groupVersion": "cluster.karpor.io/v1beta1",
        "version": "v1beta1",
    }


async def test_openapi_is_whole_and_refers_only_to_what_it_has(api: Api) -> None:
    paths = (await api.get("/openapi/v3"))["paths"]
    assert isinstance(paths, dict)
    assert "apis/cluster.karpor.io/v1beta1" in paths
    for place in paths.values():
        answer = await api.send("GET", place["serverRelativeURL"])  # type: ignore[index, call-overload, arg-type]
        assert "immutable" in answer.headers["cache-control"]
        document = answer.json()
        references = set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text))
        assert references <= document["components"]["schemas"].keys()
        assert "anyOf" not in answer.text
        assert "$defs" not in answer.text
    clusters = await api.get("/openapi/v3/apis/cluster.karpor.io/v1beta1")
    patch = clusters["paths"]["/apis/cluster.karpor.io/v1beta1/clusters/{name}"]["patch"]  # type: ignore[index, call-overload]
    assert {"fieldValidation", "dryRun"} <= {parameter["name"] for parameter in patch["parameters"]}  # type: ignore[index, union-attr, call-overload]
    assert (await api.send("GET", "/openapi/v3/apis/nothing/v1")).status_code == 404
    swagger = await api.send("GET", "/openapi/v2")
    references = set(re.findall(r'"#/definitions/([^"]+)"', swagger.text))
    assert references <= swagger.json()["definitions"].keys()


async def test_health_is_told_check_by_check(api: Api) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/readyz/storage", "/readyz/ping"):
        assert (await api.send("GET", path)).text == "ok"
    assert "[+]storage ok" in (await api.send("GET", "/readyz?verbose")).text
    api.ill.append("the disk is full")
    broken = await api.send("GET", "/readyz")
    assert (broken.status_code, broken.text) == (
        500,
        "[+]ping ok\n[-]storage failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n",
    )
    one = await api.send("GET", "/readyz/storage")
    assert (one.status_code, one.text) == (500, "internal server error: the disk is full\n")
    assert (await api.send("GET", "/readyz?exclude=storage")).text == "ok"
    assert (await api.send("GET", "/readyz?verbose&exclude=storage&exclude=x%0Ay")).text == (
        "[+]ping ok\n[+]storage excluded: ok\n[+]shutdown ok\n"
        'warn: some health checks cannot be excluded: no matches for "xy"\nreadyz check passed\n'
    )
    assert (await api.send("GET", "/livez")).text == "ok"
    assert (await api.send("GET", "/readyz/nothing")).status_code == 404
    assert (await api.send("GET", "/livez/storage")).status_code == 404


async def test_a_server_that_goes_down_is_alive_but_not_ready(api: Api) -> None:
    api.application.state.closing.set()
    assert (await api.send("GET", "/readyz/shutdown")).status_code == 500
    assert "[-]shutdown failed: reason withheld" in (await api.send("GET", "/readyz")).text
    assert (await api.send("GET", "/livez")).text == "ok"


async def test_metrics_count_requests_by_what_they_ask_for(api: Api) -> None:
    await api.get(ACCOUNTS)
    await api.send("GET", "/apis/made/up/by-a-client")
    told = (await api.send("GET", "/metrics")).text
    assert (
        'apiserver_request_total{code="200",component="apiserver",group="",resource="serviceaccounts",'
        'scope="namespace",subresource="",verb="LIST",version="v1"} 1.0' in told
    )
    assert 'apiserver_resource_objects{group="",resource="namespaces"} 2.0' in told
    assert 'apiserver_current_inflight_requests{request_kind="readOnly"} 1.0' in told
    assert "process_resident_memory_bytes" in told
    assert "by-a-client" not in told


async def test_every_answer_can_be_found_in_the_log_by_its_id(api: Api) -> None:
    ids = {(await api.send("GET", path)).headers["audit-id"] for path in ("/version", "/nothing", ACCOUNTS)}
    assert len(ids) == 3


async def test_large_answers_are_compressed_for_clients_that_take_it(api: Api) -> None:
    # The client decodes; a small one is sent as it is.
    assert (await api.send("GET", "/openapi/v2")).headers.get("content-encoding") == "gzip"
    assert "content-encoding" not in (await api.send("GET", "/version")).headers
    plain = await api.send("GET", "/openapi/v2", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert len(gzip.compress(plain.content)) < len(plain.content)


async def test_people_get_indented_json(api: Api) -> None:
    assert "\n  " in (await api.send("GET", "/version", headers={"user-agent": "curl/8"})).text
    assert "\n  " in (await api.send("GET", "/version?pretty=true")).text
    assert "\n" not in (await api.send("GET", "/version")).text
