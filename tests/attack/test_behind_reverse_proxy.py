"""A member behind a Go `httputil.ReverseProxy`, which cuts off what a Connection header names (THREATS 4)."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from tests.attack import echo
from tests.attack.conftest import CLUSTERS, EVERYTHING, Site
from tests.attack.rawhttp import request
from tests.programs import golang, gomembers
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

TOKEN = "token-behind-proxy"
LISTED = "Impersonate-User, Impersonate-Group, Authorization, X-Request-Id"


@contextmanager
def reverse_proxy(target: str, authority: trustme.CA, directory: Path) -> Iterator[str]:
    """Yields the endpoint of a proxy before `target`."""
    try:
        program = golang.build(gomembers.SOURCE, "./reverseproxy")
    except golang.GoMissing as missing:
        pytest.skip(str(missing))
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = directory / "proxy.crt", directory / "proxy.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    command = [str(program), target, str(certificate), str(key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"https://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.mark.parametrize("upgrade", ["", "websocket", "SPDY/3.1"])
def test_no_client_has_the_identity_taken_off_behind_the_gateway(site: Site, tmp_path: Path, upgrade: str) -> None:
    ivo = site.person("ivo", EVERYTHING, clusters=["behind"], identity={"mode": "Impersonate"}, wait=False)
    with echo.running("behind") as member, reverse_proxy(member.endpoint, member.authority, tmp_path) as endpoint:
        token = {"type": "ServiceAccountToken", "serviceAccountToken": TOKEN}
        cluster = site.member("behind", member, credential=token, endpoint=endpoint)
        site.made(CLUSTERS, cluster)
        try:
            site.healthy("behind")
            # That the member is known there does not say that the pass is.
            eventually(lambda: site.ask(ivo, f"{CLUSTERS}/behind/proxy/version").code == 200)
            path = f"/api/v1/namespaces/d/pods/p-{upgrade[:4]}/exec"
            listed = f"Upgrade, {LISTED}" if upgrade else LISTED
            headers = [("connection", listed), *([("upgrade", upgrade)] if upgrade else [])]
            with site.wire(ivo) as wire:
                wire.send(request("GET", f"{CLUSTERS}/behind/proxy{path}", *headers))
                assert wire.answer().code == (101 if upgrade else 200)
            (seen,) = member.requests(path)
            assert seen.all("authorization") == [f"Bearer {TOKEN}"]
            assert seen.all("impersonate-user") == ["ivo"]
            assert [value.lower() for value in seen.all("connection")] == (["upgrade"] if upgrade else [])
        finally:
            site.gone(f"{CLUSTERS}/behind")
