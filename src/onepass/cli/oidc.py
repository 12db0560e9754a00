"""Signing in at an OpenID Connect provider: in a browser (code with PKCE), on another device, or by refresh.

RFC 8252 (native apps), RFC 7636 (PKCE), RFC 8628 (device code), OpenID Connect Core 1.0. What is sent and read in OAuth
is oauthlib's; the requests are made here.
"""

import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # oauthlib's tokens are dictionaries
from urllib.parse import urlsplit

import httpx2
import jwt
from oauthlib.oauth2 import OAuth2Error, WebApplicationClient
from oauthlib.oauth2.rfc8628.clients import DeviceClient

from onepass.cli import loopback, transport
from onepass.cli.failure import Failure
from onepass.controllers import connecting

_LARGEST = 1024 * 1024
_SKEW = 60.0  # seconds before its end in which a token is not handed out any more
_PATIENCE = 300.0  # seconds that a person gets to sign in


class Rejected(Failure):
    """The provider does not give a token for what was shown: somebody has to sign in."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One client of one provider."""

    issuer: str
    client_id: str
    scopes: Sequence[str] = ()
    ca_file: Path | None = None
    redirect_port: int = 0  # 0: any


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a provider gave. `expires` in Unix seconds."""

    id_token: str
    refresh_token: str
    expires: float

    def is_good(self, now: float) -> bool:
        return bool(self.id_token) and now < self.expires - _SKEW

    def plain(self) -> dict[str, object]:
        return {"id_token": self.id_token, "refresh_token": self.refresh_token, "expires": self.expires}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "Tokens | None":
        """What `plain` gave; None for anything else."""
        parts = (kept.get("id_token"), kept.get("refresh_token"), kept.get("expires"))
        if not (isinstance(parts[0], str) and isinstance(parts[1], str) and isinstance(parts[2], int | float)):
            return None
        return cls(parts[0], parts[1], float(parts[2]))


class Provider:
    """A provider, found by its discovery document. A context manager; everything raises Failure."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        try:
            context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        except OSError as error:
            raise Failure(f"{settings.ca_file} is not a file of certificates ({transport.unusable(error)})") from error
        self._http = httpx2.Client(verify=context, timeout=15, follow_redirects=False)
        self._document: dict[str, Any] = {}

    def __enter__(self) -> "Provider":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def in_browser(self, tell: Callable[[str, bool], None], browse: Callable[[str], bool]) -> Tokens:
        """Sign in with a browser on this machine. `tell` gets the URL, and whether `browse` has opened it."""
        client = WebApplicationClient(self.settings.client_id)
        verifier = client.create_code_verifier(64)
        state, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        with loopback.listening(self.settings.redirect_port, state) as answer:
            url = client.prepare_request_uri(
                self._endpoint("authorization_endpoint"),
                redirect_uri=answer.redirect_uri,
                scope=self._scopes(),
                state=state,
                nonce=nonce,
                code_challenge=client.create_code_challenge(verifier, "S256"),
                code_challenge_method="S256",
            )
            tell(url, browse(url))
            came = answer.wait(_PATIENCE)
        if came is None:
            raise Failure(
                f"nobody signed in within {_PATIENCE:.0f} s",
                "on a machine without a browser, sign in on another device: add --device",
            )
        with _told(self.settings.issuer):
            # oauthlib refuses plain HTTP; on loopback that is what RFC 8252, 7.3, asks for.
            code = client.parse_request_uri_response(f"https://loopback/?{came}", state=state)["code"]
            body = client.prepare_request_body(code=code, redirect_uri=answer.redirect_uri, code_verifier=verifier)
        return self._tokens(client, body, nonce=nonce)

    def on_device(self, tell: Callable[[str, str, str], None]) -> Tokens:
        """Sign in with a browser anywhere. `tell` gets the URL, the code, and a URL that has the code in it or ""."""
        client = DeviceClient(self.settings.client_id)
        endpoint = self._endpoint("device_authorization_endpoint")
        asked = urlsplit(client.prepare_request_uri(endpoint, scope=self._scopes())).query
        given = self._json("POST", endpoint, asked)
        code, interval = given.get("device_code"), given.get("interval", 5)
        if not (isinstance(code, str) and isinstance(given.get("user_code"), str) and isinstance(interval, int)):
            raise Failure(f"{self.settings.issuer} refuses a device code: {_why(given)}", "sign in without --device")
        tell(
            str(given.get("verification_uri", "")), given["user_code"], str(given.get("verification_uri_complete", ""))
        )
        body = client.prepare_request_body(device_code=code, include_client_id=True)
        life = given.get("expires_in", _PATIENCE)
        deadline = time.monotonic() + (float(life) if isinstance(life, int) else _PATIENCE)
        while time.monotonic() < deadline:
            time.sleep(max(1, interval))
            try:
                return self._tokens(client, body)
            except Rejected as error:
                why = getattr(error.__cause__, "error", "")
                if why == "slow_down":
                    interval += 5
                elif why != "authorization_pending":
                    raise
        raise Failure("nobody signed in before the code expired", "try again")

    def refreshed(self, before: Tokens) -> Tokens:
        """New tokens for a refresh token. Raises Rejected when it is not good any more."""
        if not before.refresh_token:
            raise Rejected("there is no refresh token", "sign in again")
        client = WebApplicationClient(self.settings.client_id)
        body = client.prepare_refresh_body(
            refresh_token=before.refresh_token, client_id=self.settings.client_id, include_client_id=True
        )
        return self._tokens(client, body, before=before)

    def _tokens(
        self, client: WebApplicationClient | DeviceClient, body: str, *, nonce: str = "", before: Tokens | None = None
    ) -> Tokens:
        answer = self._ask("POST", self._endpoint("token_endpoint"), body)
        if answer.status_code >= 500:
            raise Failure(f"{self.settings.issuer} answered {answer.status_code}", "try again later")
        with _told(self.settings.issuer):
            given: Any = client.parse_request_body_response(answer.text)
        text = given.get("id_token")
        if not isinstance(text, str):
            raise Rejected(f"{self.settings.issuer} gave no ID token", "is `openid` among the scopes that it allows?")
        refresh = given.get("refresh_token") or (before.refresh_token if before else "")
        return Tokens(text, str(refresh), self._expiry(text, nonce))

    def _expiry(self, text: str, nonce: str) -> float:
        """When an ID token ends, once it is the one that was asked for.

        Its signature is the gateway's to check; here it came from the provider itself, over TLS (Core, 3.1.3.7).
        """
        try:
            claims = jwt.decode(text, options={"verify_signature": False, "verify_exp": False, "verify_aud": False})
        except jwt.PyJWTError as error:
            raise Failure(f"{self.settings.issuer} gave an ID token that is none") from error
        audience = claims.get("aud")
        listed = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self.settings.issuer or self.settings.client_id not in listed:
            raise Failure(f"{self.settings.issuer} gave an ID token of another issuer or for another client")
        if nonce and claims.get("nonce") != nonce:
            raise Failure(f"{self.settings.issuer} gave an ID token of another sign-in", "try again")
        expires = claims.get("exp")
        if not isinstance(expires, int | float):
            raise Failure(f"{self.settings.issuer} gave an ID token that never ends; no gateway takes it")
        return float(expires)

    def _scopes(self) -> str:
        """What is asked for: who it is, and, where the provider knows it, a refresh token."""
        known = self._described().get("scopes_supported")
        extra = ["offline_access"] if isinstance(known, list) and "offline_access" in known else []
        return " ".join(dict.fromkeys(["openid", *extra, *self.settings.scopes]))

    def _endpoint(self, name: str) -> str:
        url = self._described().get(name)
        if not isinstance(url, str) or not url.startswith("https://"):
            what = name.replace("_", " ")
            raise Failure(
                f"{self.settings.issuer} has no {what}",
                "sign in without --device" if name.startswith("device") else "is that the URL of the provider?",
            )
        return url

    def _described(self) -> dict[str, Any]:
        if not self._document:
            issuer = self.settings.issuer
            if not issuer.startswith("https://"):
                raise Failure(f"{issuer} is not the URL of a provider", "it begins with https://")
            found = self._json("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != issuer:
                told = f"what answers at {issuer} calls itself {found.get('issuer')!r}"
                raise Failure(
                    told, "write the issuer's URL exactly as the provider does, with or without a slash at its end"
                )
            self._document = found
        return self._document

    def _json(self, method: str, url: str, body: str = "") -> dict[str, Any]:
        answer = self._ask(method, url, body)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Failure(f"{url} answered {answer.status_code}, and not with JSON", "is that the URL of the provider?")
        return found

    def _ask(self, method: str, url: str, body: str = "") -> httpx2.Response:
        headers = {"accept": "application/json"}
        if body:
            headers["content-type"] = "application/x-www-form-urlencoded"
        try:
            answer = self._http.request(method, url, content=body.encode(), headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            hint = "--issuer-ca names its authority" if connecting.distrusted(error) else "is it up?"
            raise Failure(f"the provider does not answer at {url} ({transport.failing(error)})", hint) from error
        if len(answer.content) > _LARGEST:
            raise Failure(f"{url} answered with more than a megabyte")
        return answer


@contextmanager
def _told(issuer: str) -> Iterator[None]:
    try:
        yield
    except OAuth2Error as error:
        raise Rejected(f"{issuer} refuses: {error.description or error.error}", "sign in again") from error
    except (Warning, ValueError, KeyError) as error:
        hint = "is --issuer-url that of an OpenID Connect provider, and --client-id a client of it?"
        raise Failure(f"{issuer} answered something that is no OAuth 2.0", hint) from error


def _why(given: Mapping[str, Any]) -> str:
    return str(given.get("error_description") or given.get("error") or "it gave no code")
