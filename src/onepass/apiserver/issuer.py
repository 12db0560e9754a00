"""Who issues the service-account tokens, and with which keys: OIDC discovery, so that others can verify them.

https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
"""

from collections.abc import Callable, Sequence

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_CONFIGURATION, _KEYS = "/.well-known/openid-configuration", "/openid/v1/jwks"
_HEADERS = {"Cache-Control": "public, max-age=3600"}


def routes(issuer: str, jwks_uri: str, keys: Callable[[], str]) -> Sequence[Route]:
    """The two documents. `jwks_uri` is where others find the keys, `keys` gives the JSON Web Key Set."""
    document = orjson.dumps(
        {
            "issuer": issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
    )

    async def configuration(_request: Request) -> Response:
        return Response(document, headers=_HEADERS, media_type="application/json")

    async def jwks(_request: Request) -> Response:
        return Response(keys(), headers=_HEADERS, media_type="application/jwk-set+json")

    return (Route(_CONFIGURATION, configuration), Route(_KEYS, jwks))
