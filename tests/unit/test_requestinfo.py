"""Request lines against attributes. The first table is what Kubernetes' own tests of RequestInfo ask."""

import pytest

from onepass.access import requestinfo
from onepass.access.attributes import Attributes
from onepass.access.requestinfo import Malformed, Member

# method, path and query, verb, group, version, namespace, resource, subresource, name
RESOURCES = [
    ("GET", "/api/v1/namespaces", "list", "", "v1", "", "namespaces", "", ""),
    ("GET", "/api/v1/namespaces/other", "get", "", "v1", "other", "namespaces", "", "other"),
    ("GET", "/api/v1/namespaces/other/pods", "list", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
    ("HEAD", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
    ("HEAD", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods/", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo", "proxy", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo/sub/not", "proxy", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/watch/pods", "watch", "", "v1", "", "pods", "", ""),
    ("DELETE", "/api/v1/watch/pods", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=true", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=false", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/watch/namespaces/other/pods", "watch", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods?watch=1", "watch", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods?watch=0", "list", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods/foo/status", "get", "", "v1", "other", "pods", "status", "foo"),
    ("GET", "/api/v1/namespaces/other/pods/foo/proxy/subpath", "get", "", "v1", "other", "pods", "proxy", "foo"),
    ("PUT", "/api/v1/namespaces/other/finalize", "update", "", "v1", "other", "namespaces", "finalize", "other"),
    ("PUT", "/api/v1/namespaces/other/status", "update", "", "v1", "other", "namespaces", "status", "other"),
    ("PATCH", "/api/v1/namespaces/other/pods/foo", "patch", "", "v1", "other", "pods", "", "foo"),
    ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete", "", "v1", "other", "pods", "", "foo"),
    ("POST", "/api/v1/namespaces/other/pods", "create", "", "v1", "other", "pods", "", ""),
    ("DELETE", "/api/v1/nodes", "deletecollection", "", "v1", "", "nodes", "", ""),
    ("DELETE", "/api/v1/namespaces", "deletecollection", "", "v1", "", "namespaces", "", ""),
    ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection", "", "v1", "other", "pods", "", ""),
    ("DELETE", "/apis/ext/v1/namespaces/other/pods", "deletecollection", "ext", "v1", "other", "pods", "", ""),
    ("POST", "/apis/ext/v1beta3/namespaces/other/pods", "create", "ext", "v1beta3", "other", "pods", "", ""),
    ("OPTIONS", "/api/v1/pods", "", "", "v1", "", "pods", "", ""),
    ("get", "/api/v1/pods", "", "", "v1", "", "pods", "", ""),
    # Which session it is, not the method, says what it may do.
    ("GET", "/api/v1/namespaces/a/pods/p/exec", "create", "", "v1", "a", "pods", "exec", "p"),
    ("GET", "/api/v1/namespaces/a/pods/p/attach", "create", "", "v1", "a", "pods", "attach", "p"),
    ("GET", "/api/v1/namespaces/a/pods/p/portforward", "create", "", "v1", "a", "pods", "portforward", "p"),
    ("GET", "/api/v1/namespaces/a/pods/p/log", "get", "", "v1", "a", "pods", "log", "p"),
    ("GET", "/api/v1/%6eodes/a%2Db", "get", "", "v1", "", "nodes", "", "a-b"),
    ("GET", "/api/v1/nodes/a%252Fb", "get", "", "v1", "", "nodes", "", "a%2Fb"),
    ("GET", "/api/v1/nodes/%C3%A9", "get", "", "v1", "", "nodes", "", "é"),
]


@pytest.mark.parametrize("row", RESOURCES, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_resource_request_is_read_as_kube_apiserver_reads_it(row: tuple[str, ...]) -> None:
    method, target, verb, group, version, namespace, resource, subresource, name = row
    path, _, query = target.partition("?")
    found = requestinfo.parse(method, path, query, upgrade=False)
    expected = Attributes(verb, found.path, True, group, version, resource, subresource, namespace, name)
    assert found == expected


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api", "/api/v1", "/api/v1/", "/apis/group/version/", "/apis/version/resource", "/badprefix/v1/resource",
        "/not-api/version/resource", "/apis/extensions/v1beta1", "/healthz", "/API/v1/pods",
    ],
)  # fmt: skip
def test_any_other_path_is_no_resource(path: str) -> None:
    assert requestinfo.parse("GET", path, "watch=1;%", upgrade=False) == Attributes("get", path, False)
    assert requestinfo.parse("POST", path, "", upgrade=False) == Attributes("post", path, False)


def test_an_upgrade_is_create_whatever_it_asks_for() -> None:
    for path in ("/api/v1/pods", "/api/v1/nodes/n/proxy/x", "/api/v1/watch/pods", "/metrics", "/api/v1/pods/a/log"):
        for method in ("GET", "POST", "DELETE"):
            assert requestinfo.parse(method, path, "watch=1", upgrade=True).verb == "create"


@pytest.mark.parametrize(
    ("query", "verb", "name"),
    [
        ("", "list", ""),
        ("fieldSelector=metadata.name=name1", "list", "name1"),
        ("watch=true&fieldSelector=metadata.name=name1", "watch", "name1"),
        ("fieldSelector=foo=bar&labelSelector=baz=qux", "list", ""),
        ("fieldSelector=metadata.name=name1,foo", "list", ""),
        ("fieldSelector=metadata.name=name1,foo&watch=true", "watch", ""),
        ("fieldSelector=metadata.name=name1,foo&watch=false", "list", ""),
        ("fieldSelector=metadata.name=foo&fieldSelector=metadata.name=bar", "list", "foo"),
        ("fieldSelector=metadata.name%3D%3Dfoo", "list", "foo"),
        ("fieldSelector=metadata.name!=foo", "list", ""),
        ("fieldSelector=metadata.name=b,metadata.name=a", "list", "a"),
        ("fieldSelector=spec.x=y,metadata.name=a", "list", "a"),
        ("fieldSelector=metadata.name=a%5C,b", "list", "a,b"),
        ("fieldSelector=metadata.name=a%5Cb", "list", ""),
        ("fieldSelector=metadata.name=a%5C", "list", ""),
        ("fieldSelector=metadata.name=..", "list", ""),
        ("fieldSelector=metadata.name=a%2Fb", "list", ""),
        ("fieldSelector=metadata.name=a%25b", "list", ""),
        ("watch", "watch", ""),
        ("watch=", "watch", ""),
        ("watch=TRUE", "watch", ""),
        ("watch=yes", "watch", ""),
        ("watch=FALSE", "list", ""),
        ("watch=fal%C5%BFe", "list", ""),
        ("watch=false&watch=true", "list", ""),
        ("watch=true&watch=false", "watch", ""),
        ("%77atch=1", "watch", ""),
        ("Watch=1", "list", ""),
        ("&&limit=500&", "list", ""),
    ],
)
def test_the_query_decides_between_list_and_watch_and_may_give_the_name(query: str, verb: str, name: str) -> None:
    found = requestinfo.parse("GET", "/apis/group/version/resource", query, upgrade=False)
    assert (found.verb, found.name) == (verb, name)


def test_a_selector_counts_for_nothing_but_a_read_of_many() -> None:
    selector = "fieldSelector=metadata.name=x"
    assert requestinfo.parse("DELETE", "/api/v1/pods", selector, False).verb == "deletecollection"
    assert requestinfo.parse("DELETE", "/api/v1/pods", selector, False).name == ""
    assert requestinfo.parse("GET", "/api/v1/pods/y", selector, False).name == "y"
    assert requestinfo.parse("GET", "/api/v1/watch/pods", selector, False).name == ""
    assert requestinfo.parse("POST", "/api/v1/pods", "watch=1;%", False).verb == "create"


@pytest.mark.parametrize(
    "query",
    ["watch=1;watch=0", "watch=%", "watch=%zz", "limit=%4", "a=\u00e9", "a b", "a=1#", "fieldSelector=%ff", "&" * 1000],
)
def test_a_query_that_servers_read_differently_is_refused(query: str) -> None:
    with pytest.raises(Malformed):
        requestinfo.parse("GET", "/api/v1/pods", query, upgrade=False)


@pytest.mark.parametrize(
    "path",
    [
        "", "api/v1/pods", "*", "http://x/api", "/a%2Fb", "/a%2fb", "/a%5cb", "/a\\b", "/a%00b", "/a%0Ab", "/a%7Fb",
        "/a;b", "/a%3bb", "//", "/a//b", "/a//", "/.", "/..", "/a/./b", "/a/../b", "/a/..", "/%2e", "/%2E%2e/b",
        "/a/.%2e/b", "/%", "/%4", "/%zz", "/a%", "/%ff", "/%c0%af", "/%ed%a0%80", "/a b", "/a#b", "/a?b",
        "/%E2%80%C3%A9%AE", "/\u00e9", "/a\x00", "/a\nb", "/api/v1/watch", "/api/v1/proxy", "/apis/g/v1/watch/",
    ],
)  # fmt: skip
def test_a_path_that_can_be_read_in_two_ways_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        requestinfo.parse("GET", path, "", upgrade=False)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/apis/cluster.karpor.io/v1beta1/clusters/c/proxy", Member("c", "/")),
        ("/apis/cluster.karpor.io/v1beta1/clusters/c/proxy/", Member("c", "/")),
        ("/apis/cluster.karpor.io/v1beta1/clusters/c/proxy/api/v1/pods/", Member("c", "/api/v1/pods/")),
        ("/apis/kusionstack.io/Cluster/c/proxy/version", Member("c", "/version")),
        ("/apis/kusionstack.io/Cluster/c/proxyx", None),
        ("/apis/kusionstack.io/cluster/c/proxy", None),
        ("/apis/kusionstack.io/Cluster/c", None),
        ("/apis/cluster.karpor.io/v1beta1/clusters/c", None),
        ("/apis/cluster.karpor.io/v1beta1/clusters/c/status/proxy", None),
        ("/apis/cluster.karpor.io/v1/clusters/c/proxy", None),
        ("/apis/cluster.karpor.io/v1beta1/watch/clusters/c/proxy", None),
        ("/", None),
    ],
)
def test_only_clusters_proxy_and_its_alias_lead_to_a_member(path: str, found: Member | None) -> None:
    assert requestinfo.member(path) == found
