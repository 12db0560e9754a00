"""An OpenID Connect provider over TLS on loopback, made of Authlib's server: code with PKCE, device code, refresh.

Its users sign in by one request: `GET /authorize?...&login=NAME` stands for what a person does in the browser, and
`POST /device/approve` with `user_code` and `login` for what one does on another device. `sign` makes any token.
"""

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any  # what Authlib hands over has no types

import flask
import trustme
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.models import AuthorizationCodeMixin, ClientMixin, TokenMixin
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant, DeviceCredentialDict
from authlib.oidc.core import OpenIDCode
from authlib.oidc.core.grants.code import OpenIDToken
from joserfc import jwk, jwt
from werkzeug.serving import BaseWSGIServer, make_server

CLIENT = "onepass-cli"


@dataclass
class Provider:
    """The provider's state, which tests may look at and change. `lifetime` is that of ID tokens, in seconds."""

    ca: trustme.CA = field(default_factory=trustme.CA)
    users: dict[str, dict[str, object]] = field(default_factory=dict)  # name -> further claims
    lifetime: int = 300
    keys: list[jwk.ECKey] = field(default_factory=list)  # the last one signs
    codes: dict[str, "Code"] = field(default_factory=dict)
    refreshes: dict[str, "Refresh"] = field(default_factory=dict)
    devices: dict[str, dict[str, object]] = field(default_factory=dict)
    approved: dict[str, tuple[str, bool]] = field(default_factory=dict)  # user code -> who, and whether
    asked: list[str] = field(default_factory=list)  # `METHOD path` of every request
    refresh_uses: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self.rotate()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def ca_pem(self) -> bytes:
        return self.ca.cert_pem.bytes()

    def rotate(self, keep: bool = False) -> None:
        """Sign with a new key from now on; the old ones are published on only if `keep`."""
        key = jwk.ECKey.generate_key("P-256", {"kid": f"key-{time.time_ns()}", "use": "sig", "alg": "ES256"})
        self.keys = [*(self.keys if keep else ()), key]

    def claims(self, user: str, **changed: object) -> dict[str, object]:
        """The claims of an ID token; None takes one out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": CLIENT, "sub": user, "iat": now, "exp": now + self.lifetime}
        every = usual | self.users.get(user, {}) | changed
        return {name: value for name, value in every.items() if value is not None}

    def sign(self, claims: Mapping[str, object], header: Mapping[str, object] | None = None) -> str:
        key = self.keys[-1]
        return jwt.encode({"alg": "ES256", "kid": key.kid, **(header or {})}, dict(claims), key)

    def token(self, user: str, **changed: object) -> str:
        return self.sign(self.claims(user, **changed))


class Client(ClientMixin):
    """The public client of the command line; any port of loopback is its own (RFC 8252, 7.3)."""

    def get_client_id(self) -> str:
        return CLIENT

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri.startswith("http://127.0.0.1:")

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return bool(method == "none")

    def check_response_type(self, response_type: str) -> bool:
        return bool(response_type == "code")

    def check_grant_type(self, grant_type: str) -> bool:
        return True


@dataclass
class Code(AuthorizationCodeMixin):
    user: str
    scope: str
    redirect_uri: str
    nonce: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str:
        return self.nonce

    def get_auth_time(self) -> None: ...
    def get_acr(self) -> None: ...
    def get_amr(self) -> None: ...


@dataclass
class Refresh(TokenMixin):
    user: str
    scope: str
    text: str

    def check_client(self, client: Client) -> bool:
        return True

    def get_scope(self) -> str:
        return self.scope


def _extensions(provider: Provider) -> tuple[Any, Any]:
    class IdToken:
        def encode_id_token(self, token: object, request: Any) -> str:
            nonce = request.authorization_code.get_nonce() if request.authorization_code else None
            return provider.token(request.user, **({"nonce": nonce} if nonce else {}))

    class ByCode(IdToken, OpenIDCode):
        def exists_nonce(self, nonce: str, request: object) -> bool:
            return False

    class Otherwise(IdToken, OpenIDToken):
        pass

    return ByCode(), Otherwise()


def _grants(provider: Provider) -> Mapping[type, list[Any]]:
    by_code, otherwise = _extensions(provider)

    class ByCode(grants.AuthorizationCodeGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

        def save_authorization_code(self, code: str, request: Any) -> None:
            sent = request.payload.data
            provider.codes[code] = Code(
                request.user,
                request.payload.scope,
                request.payload.redirect_uri,
                sent.get("nonce", ""),
                sent["code_challenge"],
                sent.get("code_challenge_method", "plain"),
            )

        def query_authorization_code(self, code: str, client: Client) -> Code | None:
            return provider.codes.get(code)

        def delete_authorization_code(self, authorization_code: Code) -> None:
            provider.codes = {code: each for code, each in provider.codes.items() if each is not authorization_code}

        def authenticate_user(self, authorization_code: Code) -> str:
            return authorization_code.user

    class ByRefresh(grants.RefreshTokenGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token: str) -> Refresh | None:
            provider.refresh_uses += 1
            return provider.refreshes.get(refresh_token)

        def authenticate_user(self, refresh_token: Refresh) -> str:
            return refresh_token.user

        def revoke_old_credential(self, refresh_token: Refresh) -> None:
            provider.refreshes.pop(refresh_token.text, None)

    class ByDevice(DeviceCodeGrant):
        def query_device_credential(self, device_code: str) -> DeviceCredentialDict | None:
            found = provider.devices.get(device_code)
            return DeviceCredentialDict(found) if found else None

        def query_user_grant(self, user_code: str) -> tuple[str, bool] | None:
            return provider.approved.get(user_code)

        def should_slow_down(self, credential: object) -> bool:
            return False

    return {ByCode: [CodeChallenge(required=True), by_code], ByRefresh: [otherwise], ByDevice: [otherwise]}


def _app(provider: Provider) -> flask.Flask:
    app = flask.Flask("provider")

    def save_token(token: Mapping[str, Any], request: Any) -> None:
        if text := token.get("refresh_token"):
            provider.refreshes[text] = Refresh(request.user, token["scope"], text)

    app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
    server = AuthorizationServer(
        app, query_client=lambda name: Client() if name == CLIENT else None, save_token=save_token
    )
    for grant, extensions in _grants(provider).items():
        server.register_grant(grant, extensions)

    class Devices(DeviceAuthorizationEndpoint):
        INTERVAL = 1

        def get_verification_uri(self) -> str:
            return f"{provider.url}/device"

        def save_device_credential(self, client_id: str, scope: str, data: Mapping[str, Any]) -> None:
            provider.devices[data["device_code"]] = {"client_id": client_id, "scope": scope, **data}

    server.register_endpoint(Devices)

    @app.before_request
    def note() -> None:
        provider.asked.append(f"{flask.request.method} {flask.request.path}")

    @app.get("/.well-known/openid-configuration")
    def described() -> dict[str, object]:
        return {
            "issuer": provider.url,
            "authorization_endpoint": f"{provider.url}/authorize",
            "token_endpoint": f"{provider.url}/token",
            "device_authorization_endpoint": f"{provider.url}/device_authorization",
            "jwks_uri": f"{provider.url}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "code_challenge_methods_supported": ["S256"],
        }

    @app.get("/keys")
    def keys() -> flask.Response:
        body = json.dumps({"keys": [key.as_dict(private=False) for key in provider.keys]})
        return flask.Response(body, content_type="application/json")

    @app.get("/authorize")
    def authorize() -> Any:
        who = flask.request.args.get("login", "")
        return server.create_authorization_response(
            grant_user=who or None, grant=server.get_consent_grant(end_user=who)
        )

    @app.post("/token")
    def token() -> Any:
        return server.create_token_response()

    @app.post("/device_authorization")
    def device() -> Any:
        return server.create_endpoint_response(Devices.ENDPOINT_NAME)

    @app.post("/device/approve")
    def approve() -> str:
        form = flask.request.form
        provider.approved[form["user_code"]] = (form["login"], form.get("deny") != "yes")
        return "thank you"

    return app


@contextmanager
def serving(provider: Provider) -> Iterator[Provider]:
    """The provider at `provider.url`; on the port that it had before, if it had one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    provider.ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    server: BaseWSGIServer = make_server("127.0.0.1", provider.port, _app(provider), threaded=True, ssl_context=context)
    provider.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
