"""Why a connection does not come about, or breaks, in words: no number of an error and no exception of Python."""

import errno
import os
import socket
import ssl

_FORBIDDEN = "this machine's own firewall or policy forbids it"
_CLOSED = "it closes the connection"
_SYSTEM = {
    errno.ECONNREFUSED: "nothing listens there",
    errno.ECONNRESET: _CLOSED,
    errno.ECONNABORTED: _CLOSED,
    errno.EPIPE: _CLOSED,
    errno.EHOSTUNREACH: "no machine answers at that address",
    errno.ENETUNREACH: "there is no way to its network",
    errno.ETIMEDOUT: "it does not answer in time",
    errno.EADDRNOTAVAIL: "nobody can be reached at such an address from here",
    errno.EINVAL: "nobody can be reached at such an address from here",  # link-local without an interface
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}
# By the names that OpenSSL gives to what went wrong (sslerr.h); a part of a name will do.
_TLS = {
    "WRONG_VERSION_NUMBER": "it speaks no TLS",
    "RECORD_LAYER_FAILURE": "it speaks no TLS",
    "HTTP_REQUEST": "it speaks no TLS",
    "EOF": "it closes the connection within the TLS handshake",
    "CERTIFICATE_REQUIRED": "it demands a client certificate",
    "HANDSHAKE_FAILURE": "it agrees to no way of encrypting, or demands a client certificate",
    "PROTOCOL_VERSION": "it speaks only versions of TLS that are too old",
    "UNSUPPORTED_PROTOCOL": "it speaks only versions of TLS that are too old",
    "UNRECOGNIZED_NAME": "it does not know itself by that name",
}


def why(error: BaseException) -> str:
    """The end of a sentence about who was to be connected to, by the first cause that is known for what it is."""
    each: BaseException | None = error
    while each is not None:
        if found := _why(each):
            return found
        each = each.__cause__ or each.__context__
    return "the connection does not come about, or breaks"


def distrusted(error: BaseException) -> str:
    """What is wrong with a certificate, in OpenSSL's words; "" for every other failure."""
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, ssl.SSLCertVerificationError):
            return each.verify_message.rstrip(".")
        each = each.__cause__ or each.__context__
    return ""


def _why(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {distrusted(error)}"
        case ssl.SSLError():
            reason: str = getattr(error, "reason", "") or "UNKNOWN"  # of those alone that OpenSSL raises
            told = (words for name, words in _TLS.items() if name in reason)
            return next(told, f"the TLS handshake ends by: {reason.lower().replace('_', ' ')}")
        case socket.gaierror():
            return "its name cannot be resolved"
        case TimeoutError():
            return _SYSTEM[errno.ETIMEDOUT]
        case ConnectionError() if error.errno is None:
            return _CLOSED
        case OSError() if error.errno is not None:
            words = os.strerror(error.errno)
            return _SYSTEM.get(error.errno, words[:1].lower() + words[1:])
    return ""
