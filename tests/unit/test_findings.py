"""What a look at a member says, and when its status changes by it."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers import conditions, findings
from onepass.controllers.findings import Answer, Finding, Page, Standing

CREDENTIAL: Object = {"type": "ServiceAccountToken"}
WELL = Finding(True, True, "Ready", "the member answers", "v1.36.0", "h2", 10, authorized=True)
AWAY = Finding(False, False, "Timeout", "gone")
REFUSED = Finding(True, False, "Unauthorized", "no", alpn="h2", authorized=False)


def cluster(status: Object | None = None, *, generation: int = 1, credential: Object | None = None) -> Object:
    access: Object = {"credential": CREDENTIAL if credential is None else credential}
    return {"metadata": {"name": "c", "generation": generation}, "spec": {"access": access}, "status": status or {}}


def standing_of(status: Object) -> dict[str, str]:
    """Condition types to their status and reason."""
    listed = status["conditions"]
    assert isinstance(listed, list)
    every = [each for each in listed if isinstance(each, dict)]
    return {meta.text(each, "type"): f"{each['status']} {each['reason']}" for each in every}


def version(text: object) -> bytes:
    return json.dumps({"gitVersion": text}).encode()


@pytest.mark.parametrize(
    ("code", "body", "told"),
    [
        (200, version("v1.36.0"), "True Connected, True Accepted, True Ready"),
        (200, b"<html>", "True Connected, Unknown NotKubernetes, False NotKubernetes"),
        (200, b"[]", "True Connected, Unknown NotKubernetes, False NotKubernetes"),
        (200, b"[" * 100_000, "True Connected, Unknown NotKubernetes, False NotKubernetes"),
        (200, version("v" * 65), "True Connected, Unknown NotKubernetes, False NotKubernetes"),
        (200, version("v1\u001b[2J"), "True Connected, Unknown NotKubernetes, False NotKubernetes"),
        (200, version(1), "True Connected, Unknown NotKubernetes, False NotKubernetes"),
        (401, b"", "True Connected, False Unauthorized, False Unauthorized"),
        (403, b"", "True Connected, False Forbidden, False Forbidden"),
        (429, b"", "True Connected, Unknown Failing, False Failing"),
        (500, b'{"message":"etcd"}', "True Connected, Unknown Failing, False Failing"),
        (500, b'{"message":{}}', "True Connected, Unknown Failing, False Failing"),
        (503, b"", "False Failing, Unknown Failing, False Failing"),
        (302, b"", "True Connected, Unknown Redirects, False Redirects"),
        (404, b"", "True Connected, Unknown Failing, False Failing"),
    ],
)
def test_an_answer_becomes_conditions(code: int, body: bytes, told: str) -> None:
    finding = findings.verdict(cluster(), Answer(code, body), "h2", 3)
    status = findings.applied(cluster(), {}, finding, 0.0)
    assert standing_of(status) == dict(zip(("Reachable", "Authorized", "Ready"), told.split(", "), strict=True))
    assert status["healthy"] is finding.healthy is told.endswith("True Ready")
    assert status["alpn"] == "h2"


@pytest.mark.parametrize(
    ("why", "reachable"),
    [("ConnectionRefused", False), ("TLSFailed", False), ("NotHTTP", True), ("BrokenOff", True), ("NoAnswer", True)],
)
def test_what_envoy_says_itself_is_no_answer_of_the_member(why: str, reachable: bool) -> None:
    finding = findings.verdict(cluster(), Answer(502, b'{"message":"the member is so"}', why), "h2", 0)
    assert (finding.reason, finding.reachable, finding.healthy) == (why, reachable, False)
    assert finding.message.startswith("the member is so")


@pytest.mark.parametrize(
    ("error", "reason"), [(ConnectionResetError("cut"), "BrokenOff"), (TimeoutError(), "NoAnswer")], ids=["cut", "late"]
)
def test_a_member_that_does_not_answer_in_full_is_there(error: OSError, reason: str) -> None:
    finding = findings.unanswered(error, "h2", 10.0)
    assert (finding.reason, finding.reachable, finding.healthy) == (reason, True, False)


def test_a_member_that_cannot_be_asked_has_not_said_that_it_refuses_the_credential() -> None:
    status = findings.applied(cluster(), {}, AWAY, 0.0)
    assert standing_of(status) == {
        "Reachable": "False Timeout",
        "Authorized": "Unknown Timeout",
        "Ready": "False Timeout",
    }


def test_a_member_without_a_credential_takes_none() -> None:
    open_one = cluster(credential={})
    assert standing_of(findings.applied(open_one, {}, WELL, 0.0))["Authorized"] == "Unknown NoCredential"
    assert standing_of(findings.applied(open_one, {}, REFUSED, 0.0))["Authorized"] == "False Unauthorized"


def test_a_member_that_envoy_does_not_know_is_there_all_the_same() -> None:
    finding = findings.verdict(cluster(), Answer(503, b"", "NotPublished"), "h2", 0)
    status = findings.applied(cluster(), {}, finding, 0.0)
    assert standing_of(status)["Reachable"] == "True Connected"
    assert standing_of(status)["Ready"] == "False NotPublished"


@pytest.mark.parametrize(
    ("credential", "told"),
    [
        (
            {"type": "ServiceAccountToken"},
            "the member refuses the stored credential; give the gateway a new credential: "
            "onepass cluster rotate c --kubeconfig FILE",
        ),
        (
            {},
            "the member refuses whoever brings no credential; give the gateway one: "
            "onepass cluster rotate c --kubeconfig FILE",
        ),
        (
            {"type": "OIDC"},
            "the member refuses the stored credential; check as whom its credential program logs in, and that the "
            "member knows that user",
        ),
    ],
    ids=["token", "none", "program"],
)
def test_what_to_do_about_a_refusal_fits_how_the_member_is_registered(credential: Object, told: str) -> None:
    assert findings.verdict(cluster(credential=credential), Answer(401, b""), "h2", 0).message == told


def test_what_envoy_says_of_tls_is_told_in_words() -> None:
    raw = "TLS_error:|268436498:SSL routines:OPENSSL_internal:SSLV3_ALERT_BAD_CERTIFICATE:TLS_error_end:TLS_error_end"
    body = json.dumps({"message": f"{'so it is, ' * 9}check its client certificate ({raw})"})
    message = findings.verdict(cluster(), Answer(503, body.encode(), "TLSFailed"), "h2", 0).message
    assert message.endswith("check its client certificate (sslv3 alert bad certificate)")
    # What a member says is left alone.
    member = Answer(500, json.dumps({"message": raw[:60]}).encode())
    assert raw[:60] in findings.verdict(cluster(), member, "h2", 0).message


def test_what_a_member_says_is_cut_before_it_becomes_a_sentence() -> None:
    body = json.dumps({"message": "a\nb\u001b[31m" + "x" * 10_000}).encode()
    message = findings.verdict(cluster(), Answer(500, body), "h2", 0).message
    assert message.startswith("/version answered 500 ab[31mx")
    assert len(message) < 300


def test_the_same_finding_changes_nothing_and_a_transition_moves_its_time() -> None:
    first = findings.applied(cluster(), {}, WELL, 1000.0)
    assert findings.applied(cluster(), first, replace(WELL, latency_ms=99), 2000.0) == first
    dead = findings.applied(cluster(), first, AWAY, 3000.0)
    assert (dead["version"], dead["alpn"]) == ("v1.36.0", "h2")
    listed = dead["conditions"]
    assert isinstance(listed, list)
    assert [c["lastTransitionTime"] for c in listed if isinstance(c, dict)] == ["1970-01-01T00:50:00Z"] * 3


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (None, 0.2, "1ms"),
        ("1ms", 9.0, "1ms"),  # nine times as long, and nothing that anybody would notice
        ("4ms", 40.0, "40ms"),
        ("100ms", 190.0, "100ms"),
        ("100ms", 210.0, "210ms"),
        ("100ms", 30.0, "30ms"),
        ("what", 30.0, "30ms"),
    ],
)
def test_a_latency_is_told_anew_when_it_is_another(old: str | None, new: float, told: str) -> None:
    status: Object = {} if old is None else {"latency": old}
    assert findings.with_latency(status, new)["latency"] == told


def test_a_latency_is_an_average() -> None:
    standing = Standing()
    for milliseconds in (10, 10, 500, 10, 10):
        standing.seen(replace(WELL, latency_ms=milliseconds))
    assert 10 < standing.latency < 100


@pytest.mark.parametrize(
    ("code", "listed", "nodes"),
    [
        (200, {"metadata": {"continue": "x", "remainingItemCount": 4999}, "items": [{}]}, 5000),
        (200, {"metadata": {}, "items": [{}]}, 1),
        (200, {"metadata": {}, "items": []}, 0),
        (200, {"items": [{}, {}]}, 2),  # a server that pages nothing
        (200, {"metadata": {"remainingItemCount": -5}, "items": [{}]}, None),
        (200, {"metadata": {"remainingItemCount": 1 << 40}, "items": [{}]}, None),
        (200, {"metadata": {"remainingItemCount": "many"}, "items": [{}]}, None),
        (200, {"items": "many"}, None),
        (403, {"items": [{}]}, None),
        (404, {}, None),
    ],
)
def test_nodes_are_counted_by_a_list_of_one(code: int, listed: dict[str, JSON], nodes: int | None) -> None:
    assert findings.nodes(Answer(code, json.dumps(listed).encode())) == (None if nodes is None else Page(nodes))


def test_a_list_that_does_not_say_how_many_are_left_says_where_it_goes_on() -> None:
    listed = {"metadata": {"continue": "x"}, "items": [{}]}
    assert findings.nodes(Answer(200, json.dumps(listed).encode())) == Page(1, "x")


def test_a_count_that_is_not_told_any_more_is_taken_away() -> None:
    assert findings.with_nodes({"healthy": True}, 3) == {"healthy": True, "nodes": 3}
    assert findings.with_nodes({"healthy": True, "nodes": 3}, None) == {"healthy": True}


class Watched:
    """A cluster by the statuses that were written of it."""

    def __init__(self) -> None:
        self.cluster = cluster()
        self.standing = Standing()
        self.written = 0

    def look(self, *looks: Finding) -> bool:
        """Whether it is told to be healthy after these looks."""
        for finding in looks:
            self.standing.seen(finding)
            status = meta.section(self.cluster, "status")
            if not self.standing.believes(self.cluster):
                continue
            new = findings.applied(self.cluster, status, finding, 0.0)
            if new != status:
                if status.get("healthy") is True and not finding.healthy:
                    self.standing.fell()
                self.written += 1
                self.cluster = {**self.cluster, "status": new}
        return meta.section(self.cluster, "status").get("healthy") is True


@pytest.mark.parametrize(
    ("looks", "healthy", "written"),
    [
        ([WELL], True, 1),  # the first look is told at once
        ([AWAY], False, 1),
        ([WELL, AWAY, AWAY], True, 1),
        ([WELL, AWAY, AWAY, WELL, AWAY, AWAY, WELL], True, 1),
        ([WELL, AWAY, AWAY, AWAY], False, 2),
        ([WELL, AWAY, REFUSED, AWAY], False, 2),  # bad, for whatever reasons
        ([AWAY, WELL], False, 1),
        ([AWAY, WELL, WELL], True, 2),
        ([AWAY, REFUSED, AWAY, REFUSED, AWAY], False, 1),  # reasons that come and go are not told
        ([AWAY, REFUSED, REFUSED], False, 2),
        ([WELL, replace(WELL, version="v2"), WELL, replace(WELL, version="v2")], True, 1),  # two API servers
        ([WELL, replace(WELL, version="v2"), replace(WELL, version="v2")], True, 2),
    ],
)
def test_a_status_changes_when_the_same_was_found_again(looks: Sequence[Finding], healthy: bool, written: int) -> None:
    watched = Watched()
    assert watched.look(*looks) is healthy
    assert watched.written == written


def test_a_member_that_keeps_coming_and_going_is_believed_later_each_time() -> None:
    watched = Watched()
    watched.look(WELL)
    for needed in (4, 8, 16, 16):
        assert not watched.look(AWAY, AWAY, AWAY)
        assert not watched.look(*[WELL] * (needed - 1))
        assert watched.look(WELL)
    watched.look(*[WELL] * 40)  # until it has been calm for long
    assert not watched.look(AWAY, AWAY, AWAY)
    assert watched.look(*[WELL] * 4)


def test_what_failed_before_a_change_is_no_reason_to_wait_for_long_after_it() -> None:
    standing = Standing()
    for generation, failures in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2)):
        standing.begin(generation)
        standing.seen(AWAY)
        assert standing.failures == failures


def test_a_thousand_flaps_are_few_writes() -> None:
    watched = Watched()
    watched.look(WELL)
    for _ in range(1000):
        watched.look(AWAY, WELL)
    assert watched.written == 1
    watched = Watched()
    watched.look(WELL)
    for _ in range(250):
        watched.look(AWAY, AWAY, AWAY, WELL)
    assert watched.written == 2


def test_a_changed_spec_is_told_of_at_once() -> None:
    watched = Watched()
    watched.look(WELL)
    watched.cluster = {**watched.cluster, "metadata": {"name": "c", "generation": 2}}
    assert not watched.look(REFUSED)
    ready = conditions.find(meta.section(watched.cluster, "status")["conditions"], "Ready")
    assert ready is not None
    assert ready["observedGeneration"] == 2
