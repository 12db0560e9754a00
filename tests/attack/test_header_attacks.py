"""Attacks by headers: who one is, whom one acts as, and what is hop by hop."""

import pytest
from tests.attack.conftest import C1, C2, TOKEN_1, Person, Site

pytestmark = pytest.mark.e2e

REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.mark.parametrize("target", [C1, C2])
@pytest.mark.parametrize("http2", [False, True])
def test_what_a_client_says_of_itself_never_reaches_a_member(
    site: Site, reader: Person, target: str, http2: bool
) -> None:
    marker = f"/api/v1/forged-{http2}-{target[-8:-6]}"
    answer = site.ask(
        reader,
        target + marker,
        ("x-remote-user", "admin"),
        ("x-remote-group", "system:masters"),
        ("x-remote-uid", "0"),
        ("x-remote-extra-scopes", "all"),
        ("x-forwarded-client-cert", "Subject=CN=admin"),
        ("x-forwarded-for", "127.0.0.9"),
        ("x-envoy-original-path", "/x"),
        ("x-envoy-internal", "true"),
        ("x-onepass-member", "member/c2"),
        ("x-onepass-route", "apiserver"),
        http2=http2,
    )
    assert answer.code == 200
    member = site.c1 if target == C1 else site.c2
    (seen,) = member.requests(marker)
    names = {name.lower() for name, _ in seen.headers}
    assert not {name for name in names if name.startswith(("x-remote-", "x-envoy-", "x-onepass-", "impersonate-"))}
    assert "x-forwarded-client-cert" not in names
    assert "127.0.0.9" not in str(seen.headers)
    assert seen.all("authorization") == ([f"Bearer {TOKEN_1}"] if target == C1 else [])
