"""What goes wrong on the way to a server, in words; for who asks a gateway, a member or a provider of identities."""

import httpx2
from lightkube.core.exceptions import ConfigError

from onepass.controllers import connecting


def failing(error: Exception) -> str:
    """The end of a sentence about a server."""
    match error:
        case httpx2.TimeoutException():
            return "it does not answer in time"
        case httpx2.ProxyError():  # the status line of a proxy that refuses
            return f"it answers {error}"
        case httpx2.RemoteProtocolError() | httpx2.LocalProtocolError():
            return "it breaks off within its answer, or does not speak HTTP as it should"
    return connecting.why(error)


def unusable(error: Exception) -> str:
    """Why certificates, and what belongs to them, cannot be used."""
    match error:
        case ConfigError():
            return str(error)
        case OSError() if error.filename is not None and error.strerror:
            return f"{error.filename} cannot be read: {error.strerror}"
    return "they are no certificates and keys in PEM, or do not belong together"
