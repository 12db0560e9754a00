"""What the commands print, and that nobody else's text can steer a terminal."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from onepass.api.meta import JSON, Object
from onepass.cli import clusterviews, durations, enrolment, issuing, output, passviews, status
from onepass.cli.failure import Failure
from onepass.cli.memberconfig import Access

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = durations.rfc3339(NOW + timedelta(hours=8))
BEFORE = durations.rfc3339(NOW - timedelta(hours=1))

PASS: Object = {
    "kind": "Pass",
    "metadata": {"name": "alice-1"},
    "spec": {
        "subjects": [
            {"kind": "User", "name": "alice"},
            {"kind": "ServiceAccount", "namespace": "build", "name": "robot"},
        ],
        "clusters": {"names": ["prod"], "selector": {"matchLabels": {"env": "dev"}}},
        "rules": [
            {"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["pods/log"], "namespaces": ["web"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
        ],
        "notAfter": LATER,
    },
}


def altered(**spec: object) -> Object:
    copied: Object = json.loads(json.dumps(PASS))
    section = copied["spec"]
    assert isinstance(section, dict)
    section.update(json.loads(json.dumps(spec)))
    return copied


def test_a_pass_is_one_row() -> None:
    assert passviews.rows([PASS], NOW) == [
        (
            "alice-1",
            "User alice, ServiceAccount build/robot",
            "prod, env=dev",
            "get,list on pods/log,pods.apps/log in web; get on /metrics",
            "2026-11-23 20:00 UTC (in 8h)",
            "[green]yes[/]",
        )
    ]


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({}, "yes"),
        ({"notAfter": None}, "yes"),
        ({"suspended": True}, "suspended"),
        ({"notAfter": BEFORE}, "expired"),
        ({"notBefore": LATER, "notAfter": None}, "not yet"),
        ({"suspended": True, "notAfter": BEFORE}, "suspended"),
    ],
)
def test_whether_a_pass_is_in_force(spec: dict[str, object], word: str) -> None:
    assert passviews.standing(altered(**spec), NOW) == word


def test_a_pass_is_told_in_sentences() -> None:
    told = "\n".join(passviews.sentences(altered(identity={"mode": "Impersonate"}), NOW))
    assert "User alice" in told
    assert "their own rules apply on top" in told
    assert "It ends 2026-11-23 20:00 UTC (in 8h)." in told
    assert "in force" in told


def test_a_pass_of_another_shape_is_shown_all_the_same() -> None:
    broken: Object = {"metadata": {"name": "x"}, "spec": {"subjects": "nobody", "rules": [1], "clusters": None}}
    assert passviews.rows([broken], NOW)[0][0] == "x"
    assert passviews.sentences(broken, NOW)


def test_only_what_is_in_force_expires_soon() -> None:
    soon = durations.rfc3339(NOW + timedelta(hours=1))
    assert passviews.expires_soon(altered(notAfter=soon), NOW)
    assert not passviews.expires_soon(altered(notAfter=soon, suspended=True), NOW)
    assert not passviews.expires_soon(PASS, NOW)


CLUSTER: Object = {
    "metadata": {"name": "prod", "creationTimestamp": BEFORE, "labels": {"env": "prod"}},
    "spec": {
        "provider": "eks",
        "access": {"endpoint": "https://p", "credential": {"type": "X509Certificate", "fingerprint": "sha256:ab"}},
    },
    "status": {
        "healthy": False,
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "[b]No", "message": "the [red]member[/] refuses"}
        ],
    },
}


def test_a_cluster_is_one_row() -> None:
    health = r"[red]unhealthy[/]: \[b]No"
    assert clusterviews.rows([CLUSTER], NOW) == [("prod", "eks", "https://p", health, "", "", "1h")]
    assert clusterviews.advice([{}, CLUSTER]).endswith("onepass cluster show prod")
    assert not clusterviews.advice([{"metadata": {"name": "new"}}])


def ready(status: str, reason: str, message: str) -> Object:
    return {"type": "Ready", "status": status, "reason": reason, "message": message}


def of(*conditions: Object, name: str = "prod", access: Object | None = None) -> Object:
    healthy = all(each["status"] == "True" for each in conditions)
    status: Object = {"healthy": healthy, "conditions": list(conditions)}
    return {"metadata": {"name": name}, "spec": {"access": access or {}}, "status": status}


def test_below_a_list_stands_what_to_type() -> None:
    sick, ends = ready("False", "Timeout", "gone"), ready("True", "EndsSoon", "soon") | {"type": "CredentialValid"}
    well = of(ready("True", "Ready", "it answers"))
    assert clusterviews.advice([well]) == ""
    assert clusterviews.advice([well, of(ends), of(sick, name="a b")]).endswith(": onepass cluster show 'a b'")
    told = clusterviews.advice([well, of(ends, name="one"), of(ends, name="two")])
    assert told == "Credentials end soon, of one and 1 more: onepass cluster show one"


def test_a_cluster_is_told_once_what_is_wrong_and_by_which_ways_it_is_reached() -> None:
    sentence = "nothing listens on p:1"
    reachable: Object = {"type": "Reachable", "status": "False", "reason": "X", "message": sentence}
    ends = ready("True", "EndsSoon", "6 days left") | {"type": "CredentialValid"}
    access: Object = {"endpoint": "https://p:1", "endpoints": ["https://q:1"], "proxyURL": "http://proxy:3128"}
    told = clusterviews.facts(of(ends, reachable, ready("False", "X", sentence), access=access), NOW)
    assert [value for _, value in told if sentence in value] == [f"[red]unhealthy[/]: {sentence}"]
    assert [name for name, _ in told][-3:] == ["Reachable", "CredentialValid", "Age"]
    facts = dict(told)
    assert facts["Reachable"] == "[red]no[/]"
    assert facts["CredentialValid"] == "[yellow]yes[/]: 6 days left"
    assert facts["Endpoint"] == "https://p:1, https://q:1"
    assert facts["Proxy"] == "http://proxy:3128"


@pytest.mark.parametrize(
    ("reason", "credential", "why", "hint"),
    [
        ("Unauthorized", "", "the member refuses the credential of context ctx", "log in to that cluster anew"),
        ("Unauthorized", "its own token", "the member refuses its own token", "log in to that cluster anew"),
        ("CertificateInvalid", "", "as the prober says: onepass x", "certificate-authority-data"),
        ("ProxyUnreachable", "", "as the prober says: onepass x", "--proxy-url"),
        ("Timeout", "", "as the prober says: onepass x", ""),
    ],
)
def test_what_is_not_kept_is_told_of_as_a_kubeconfig_has_it(reason: str, credential: str, why: str, hint: str) -> None:
    result = enrolment.Result("ctx", "prod", "registered")
    found = enrolment.judged(result, of(ready("False", reason, "as the prober says: onepass x")), credential)
    assert (found.outcome, found.why) == ("unhealthy", why)
    assert hint in found.hint
    assert bool(hint) == bool(found.hint)


def test_what_was_not_looked_at_names_no_command_about_a_cluster_that_is_gone() -> None:
    found = enrolment.judged(enrolment.Result("ctx", "prod", "registered"), None)
    assert (found.why, found.hint) == ("it has not looked at it within 25 s", "see how the gateway is: onepass status")


def test_a_cluster_that_nobody_looked_at_is_not_called_unhealthy() -> None:
    assert "not probed" in clusterviews.rows([{"metadata": {"name": "new"}}], NOW)[0][3]


def test_a_cluster_tells_why_it_is_unwell_and_the_fingerprint_of_its_credential() -> None:
    facts = dict(clusterviews.facts(CLUSTER, NOW))
    assert facts["Credential"] == "X509Certificate sha256:ab"
    assert "refuses" in facts["Health"]


def test_a_cluster_tells_each_condition_and_its_nodes() -> None:
    conditions: list[JSON] = [
        {"type": "Reachable", "status": "True", "message": "the API server is there"},
        {"type": "Authorized", "status": "Unknown", "message": "it has not said"},
        {"type": "CredentialValid", "status": "True", "message": "the token ends 2027-01-01, 40 days left"},
    ]
    told: Object = {**CLUSTER, "status": {"healthy": True, "nodes": 7, "conditions": conditions}}
    facts = dict(clusterviews.facts(told, NOW))
    assert facts["Nodes"] == "7"
    assert not dict(clusterviews.facts(CLUSTER, NOW))["Nodes"]
    silent: Object = {**CLUSTER, "status": {"healthy": True, "conditions": [{"type": "Ready", "status": "True"}]}}
    assert "may not list them" in dict(clusterviews.facts(silent, NOW))["Nodes"]
    assert clusterviews.rows([told], NOW)[0][5] == "7"
    assert facts["Reachable"] == "[green]yes[/]: the API server is there"
    assert facts["Authorized"] == "[yellow]not known[/]: it has not said"
    assert facts["CredentialValid"].endswith("40 days left")


def test_no_markup_and_no_escape_sequence_of_a_stranger_gets_through(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(output.safe("[red]x[/] \x1b[31mred\x07 \x9b31m"))
    shown = capsys.readouterr().out
    assert shown == "[red]x[/] \ufffd[31mred\ufffd \ufffd31m\n"


def test_an_error_is_a_sentence_and_a_hint_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    output.fail("it [bold]broke[/] \x1b[2J", "do this\nthen that")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: it [bold]broke[/] \ufffd[2J\n  do this\n  then that\n"


def test_a_table_that_is_not_for_a_terminal_is_cut_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "WHY"), [("a" * 100, "b " * 100), ("c", "d")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "a" * 100 in lines[1]
    assert ("b " * 100).strip() in lines[1]
    assert lines == [line.rstrip() for line in lines]


def test_json_and_yaml_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    output.items(output.Format.json, [PASS])
    from_json = json.loads(capsys.readouterr().out)
    output.items(output.Format.yaml, [PASS])
    assert yaml.safe_load(capsys.readouterr().out) == from_json
    assert from_json["items"] == [PASS]


@pytest.mark.parametrize(
    ("context", "taken", "name"),
    [
        ("prod", (), "prod"),
        ("arn:aws:eks:eu-1:12:cluster/Prod", (), "arn-aws-eks-eu-1-12-cluster-prod"),
        ("gke_proj_zone_name", (), "gke-proj-zone-name"),
        ("prod", ("prod", "prod-2"), "prod-3"),
        ("-x-", (), "x"),
        ("a" * 80, (), "a" * 63),
        ("a" * 80, ("a" * 63,), "a" * 59 + "-2"),
    ],
)
def test_a_context_becomes_a_dns_name(context: str, taken: tuple[str, ...], name: str) -> None:
    assert enrolment.named(context, taken) == name


def test_a_context_without_a_letter_becomes_no_name() -> None:
    with pytest.raises(Failure, match="no name"):
        enrolment.named("!!!")


@pytest.mark.parametrize(
    ("reason", "looked_at"), [("", False), ("NotPublished", False), ("ConnectionRefused", True), ("Ready", True)]
)
def test_a_word_on_a_member_comes_from_the_member(reason: str, looked_at: bool) -> None:
    conditions: list[JSON] = [{"type": "Ready", "status": "False", "reason": reason}] if reason else []
    assert enrolment.looked_at({"status": {"conditions": conditions}}) is looked_at


def test_labels_are_key_and_value() -> None:
    assert enrolment.pairs(["env=prod", "a.b/c="]) == {"env": "prod", "a.b/c": ""}
    with pytest.raises(Failure, match="'env'"):
        enrolment.pairs(["env"])


def test_a_wish_becomes_a_cluster() -> None:
    wish = enrolment.Wish("eks", "", "the shop", ["env=prod"], impersonate=True)
    made = enrolment.cluster("prod", Access("ctx", "https://p", token="t"), wish)
    assert made["metadata"] == {"name": "prod", "labels": {"env": "prod"}}
    assert made["spec"] == {
        "provider": "eks",
        "displayName": "prod",
        "description": "the shop",
        "access": {
            "endpoint": "https://p",
            "credential": {"type": "ServiceAccountToken", "serviceAccountToken": "t"},
            "identity": "Impersonate",
        },
    }


def test_resources_become_one_rule_a_group() -> None:
    order = issuing.Order(
        "bob", resources=("pods", "pods/log", "deployments.apps/scale", "secrets.core"), namespaces=("web",)
    )
    verbs = ["get", "list", "watch"]
    assert issuing.rules(order) == [
        {"verbs": verbs, "apiGroups": ["*"], "resources": ["pods", "pods/log"], "namespaces": ["web"]},
        {"verbs": verbs, "apiGroups": ["apps"], "resources": ["deployments/scale"], "namespaces": ["web"]},
        {"verbs": verbs, "apiGroups": [""], "resources": ["secrets"], "namespaces": ["web"]},
    ]


@pytest.mark.parametrize("resource", ["", "/log", "pods/", "pods."])
def test_what_is_no_resource_is_refused(resource: str) -> None:
    with pytest.raises(Failure, match="not a resource"):
        issuing.rules(issuing.Order("bob", resources=(resource,)))


def test_a_selector_becomes_labels_and_anything_else_is_refused() -> None:
    made = issuing.wanted(issuing.Order("bob", selector="env=dev, team==a"), "bob-1", NOW)
    spec = made["spec"]
    assert isinstance(spec, dict)
    assert spec["clusters"] == {"selector": {"matchLabels": {"env": "dev", "team": "a"}}}
    for wrong in ("env", "env!=dev", "env in (a)", ""):
        with pytest.raises(Failure):
            issuing.wanted(issuing.Order("bob", selector=wrong or ","), "bob-1", NOW)


def test_the_name_of_a_pass_is_made_of_the_user() -> None:
    assert issuing.title(issuing.Order("Alice@Example.com")).startswith("alice-example-com-")
    assert issuing.title(issuing.Order("李")).startswith("pass-")
    assert issuing.title(issuing.Order("a")) != issuing.title(issuing.Order("a"))
    assert issuing.title(issuing.Order("a", name="mine")) == "mine"


def test_the_lines_of_readyz_are_read() -> None:
    assert status.checks("[+]ping ok\n[-]storage failed: reason withheld\nreadyz check failed\n") == {
        "ping": True,
        "storage": False,
    }
