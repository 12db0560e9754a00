"""A tunnel to a member through its proxy, as Envoy makes them, so that what is wrong with the proxy can be told."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

from onepass.controllers import connecting
from onepass.gateway import ir, tunnels

GetProxy = Callable[[], Awaitable[ir.Proxy]]
Judge = Callable[[str], Sequence[str]]
_HEAD = 16 * 1024  # bytes that an answer to CONNECT may have


class ProxyFailed(OSError):
    """Why a proxy does not lead to a member: a CamelCase word, and a sentence."""

    def __init__(self, reason: str, told: str) -> None:
        super().__init__(told)
        self.reason = reason


async def judged(host: str, port: int, judge: Judge) -> tuple[Sequence[str], str]:
    """The addresses that a host leads to and that may be connected to, IPv4 first, and what is wrong with the rest."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(str(each[4][0]) for each in sorted(found, key=lambda each: each[0] != socket.AF_INET))
    wrong = {address: judge(address) for address in addresses}
    first = next(iter(addresses))
    return [address for address in addresses if not wrong[address]], f"{first}, which {''.join(wrong[first][:1])}"


async def connected(
    proxy: ir.Proxy, place: ir.Place, context: ssl.SSLContext, server_name: str, judge: Judge
) -> asyncio.StreamWriter:
    """TLS with who is at `place`, through the proxy. Raises ProxyFailed for what the proxy is to blame for."""
    shown = tunnels.shown(proxy)
    reader, writer = await _reached(proxy, shown, judge)
    try:
        await _led(proxy, shown, tunnels.authority(place), reader, writer)
        await writer.start_tls(context, server_hostname=server_name)
    except BaseException:
        writer.close()
        raise
    return writer


async def _reached(proxy: ir.Proxy, shown: str, judge: Judge) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        allowed, wrong = await judged(proxy.host, proxy.port, judge)
    except socket.gaierror:
        raise ProxyFailed("ProxyNotFound", f"the name of the proxy {shown} cannot be resolved") from None
    if not allowed:
        raise ProxyFailed("ProxyForbidden", f"the proxy {shown} leads to {wrong}; name another one")
    context = ssl.create_default_context() if proxy.tls else None
    try:
        return await asyncio.open_connection(
            allowed[0], proxy.port, ssl=context, server_hostname=proxy.host if context else None, limit=_HEAD
        )
    except ssl.SSLCertVerificationError as error:
        told = f"the certificate of the proxy {shown} is not trusted by this system: {error.verify_message}"
        raise ProxyFailed("ProxyCertificateInvalid", told) from error
    except OSError as error:
        told = f"the proxy {shown} cannot be reached ({connecting.why(error)}); check proxyURL and that it runs"
        raise ProxyFailed("ProxyUnreachable", told) from error


async def _led(
    proxy: ir.Proxy, shown: str, authority: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """CONNECT, as in RFC 9110, section 9.3.6."""
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    lines += [f"Proxy-Authorization: {proxy.authorization}"] if proxy.authorization else []
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
        raise ProxyFailed("ProxyFailed", f"{shown} does not answer as an HTTP proxy does") from error
    version, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
        raise ProxyFailed("ProxyFailed", f"{shown} does not answer as an HTTP proxy does")
    if code == "407":
        what = "refuses the user name and password of" if proxy.authorization else "wants a user name and password in"
        raise ProxyFailed("ProxyUnauthorized", f"the proxy {shown} {what} proxyURL; supply proxyURL anew")
    if not code.startswith("2"):
        safe = "".join(c for c in rest if c.isprintable())[:60]
        raise ProxyFailed("ProxyRefused", f"the proxy {shown} does not lead to {authority}: it answers {safe!r}")
