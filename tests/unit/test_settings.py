"""What an operator may say, and what is refused with a sentence."""

from typing import Any

import pytest

from onepass.runtime.settings import Claim, Issuer, Listen, ServiceAccounts, Settings, SettingsError


@pytest.mark.parametrize(
    ("text", "host", "port", "url"),
    [
        ("127.0.0.1:6443", "127.0.0.1", 6443, "https://127.0.0.1:6443"),
        ("localhost:1", "127.0.0.1", 1, "https://127.0.0.1:1"),
        (":7000", "0.0.0.0", 7000, "https://127.0.0.1:7000"),
        ("[::1]:6443", "::1", 6443, "https://[::1]:6443"),
        ("[::]:6443", "::", 6443, "https://[::1]:6443"),
        ("10.0.0.7:443", "10.0.0.7", 443, "https://10.0.0.7:443"),
    ],
)
def test_where_to_listen(text: str, host: str, port: int, url: str) -> None:
    listen = Listen.parse(text)
    assert (listen.host, listen.port, listen.url) == (host, port, url)


@pytest.mark.parametrize("text", ["", "6443", "nowhere:1", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "1.2.3.4:x"])
def test_no_place_to_listen(text: str) -> None:
    with pytest.raises(SettingsError, match="--listen"):
        Listen.parse(text)


@pytest.mark.parametrize("name", ["gateway.example.com", "*.example.com", "10.0.0.1", "::1", "a"])
def test_names_for_the_certificate(name: str) -> None:
    assert Settings(names=(name,)).names == (name,)


@pytest.mark.parametrize("name", ["", "bad name", "http://x", "a..b", "-a", "a" * 64])
def test_no_names_for_a_certificate(name: str) -> None:
    with pytest.raises(SettingsError, match="--name"):
        Settings(names=(name,))


@pytest.mark.parametrize("number", [-1, 17])
def test_too_few_or_too_many_sandbox_members(number: int) -> None:
    with pytest.raises(SettingsError, match="--sandbox"):
        Settings(sandbox=number)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"allow_endpoint_cidr": ("10.0.0.1/8",)}, "host bits set"),
        ({"allow_endpoint_cidr": ("example.com",)}, "give networks such as"),
        ({"max_memory": 1}, "at least 64 MiB"),
        ({"issuers": (Issuer("https://onepass", ("a",), Claim("sub")),)}, "the gateway's own tokens"),
        ({"sandbox": 1, "listen": Listen.parse("0.0.0.0:1")}, "only beside a gateway on loopback"),
    ],
)
def test_what_cannot_be_asked_of_a_gateway(options: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Settings(**options)


@pytest.mark.parametrize(
    ("issuers", "jwks_uri", "keys"),
    [
        (("https://onepass",), "", "https://10.0.0.7:443/openid/v1/jwks"),
        (("https://gw.example:6443", "https://onepass"), "", "https://gw.example:6443/openid/v1/jwks"),
        (("https://gw.example/tenant/",), "", "https://gw.example/tenant/openid/v1/jwks"),
        (("https://gw.example",), "https://keys.example/set", "https://keys.example/set"),
    ],
)
def test_where_the_keys_of_service_account_tokens_are(issuers: tuple[str, ...], jwks_uri: str, keys: str) -> None:
    accounts = ServiceAccounts(issuers, jwks_uri)
    assert (accounts.issuer, accounts.keys("https://10.0.0.7:443")) == (issuers[0], keys)


@pytest.mark.parametrize(
    "url", ["", "onepass", "http://x", "https://", "https://a@x", "https://x?y=1", "https://x:0", "https://[x"]
)
def test_no_issuer_of_service_account_tokens(url: str) -> None:
    with pytest.raises(SettingsError, match="--service-account-issuer"):
        ServiceAccounts(("https://onepass", url))
    if url:
        with pytest.raises(SettingsError, match="--service-account-jwks-uri"):
            ServiceAccounts(jwks_uri=url)
