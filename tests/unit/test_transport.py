"""What goes wrong on the way to a server, in words."""

import ssl
from pathlib import Path

import httpx2
import pytest
import trustme
from lightkube.core.exceptions import ConfigError

from onepass.cli import memberclient, transport
from onepass.cli.failure import Unreachable
from onepass.cli.memberconfig import Access


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx2.ReadTimeout("The read operation timed out"), "it does not answer in time"),
        (httpx2.ProxyError("407 Proxy Authentication Required"), "it answers 407 Proxy Authentication Required"),
        (httpx2.LocalProtocolError("Illegal header value b'Bearer s3cr3t'"), "it breaks off within its answer, or "),
        (httpx2.RemoteProtocolError("Server disconnected"), "it breaks off within its answer, or "),
        (httpx2.ConnectError("[Errno 111] Connection refused"), "the connection does not come about, or breaks"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_transport_that_fails_is_told_in_words(error: Exception, words: str) -> None:
    assert transport.failing(error).startswith(words)
    assert "s3cr3t" not in transport.failing(error)


def test_certificates_that_are_of_no_use_are_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(OSError) as absent:  # noqa: PT011  of which the words are asked
        (tmp_path / "ca.crt").read_bytes()
    assert transport.unusable(absent.value) == f"{tmp_path}/ca.crt cannot be read: No such file or directory"
    with pytest.raises(ssl.SSLError) as junk:
        ssl.create_default_context(cadata="junk")
    assert "PEM" in transport.unusable(junk.value)
    assert "_ssl.c" not in transport.unusable(junk.value)
    assert transport.unusable(ConfigError("there is no key")) == "there is no key"


def test_a_member_where_nothing_listens_is_told_by_its_place() -> None:
    access = Access("ctx", "https://127.0.0.1:1", trustme.CA().cert_pem.bytes(), token="t")
    with memberclient.Member(access) as member, pytest.raises(Unreachable) as caught:
        member.get("/version")
    assert caught.value.what == "context ctx: https://127.0.0.1:1 cannot be reached (nothing listens there)"
