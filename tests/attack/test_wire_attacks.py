"""Attacks on the wire: where one request ends and the next begins, and floods (THREATS 22, 23).

No claim about time: a flood ends with a counter, and other clients are served during and after it.
"""

import contextlib
import socket
import ssl
import struct
import sys
import time

import hyperframe.frame
import pytest
from tests.attack.conftest import C1, SECONDS, Person, Site
from tests.attack.rawhttp import Http2, Wire, request
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

HEAD = b"POST " + C1.encode() + b"/api/v1/namespaces/d/pods HTTP/1.1\r\nhost: gateway\r\n"
HIDDEN = b"GET " + C1.encode() + b"/api/v1/namespaces/d/secrets/hidden HTTP/1.1\r\nhost: gateway\r\n\r\n"
BODY = b"0\r\n\r\n" + HIDDEN

# Each would be two requests to one reader and one to another.
SMUGGLING = {
    "length and chunks": b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n" % len(BODY),
    "chunks and length": b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n",
    "two lengths": b"content-length: 0\r\ncontent-length: %d\r\n\r\n" % len(BODY),
    "a list of lengths": b"content-length: 0, %d\r\n\r\n" % len(BODY),
    "a length with a sign": b"content-length: +%d\r\n\r\n" % len(BODY),
    "a negative length": b"content-length: -1\r\n\r\n",
    "a length in hex": b"content-length: 0x10\r\n\r\n",
    "a length too large": b"content-length: 99999999999999999999999\r\n\r\n",
    "chunked twice": b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunked, then identity": b"transfer-encoding: chunked, identity\r\n\r\n",
    "identity, then chunked": b"transfer-encoding: identity, chunked\r\n\r\n",
    "xchunked": b"transfer-encoding: xchunked\r\n\r\n",
    "chunked after a tab": b"transfer-encoding:\tchunked\r\n\r\n",
    "chunked after vertical tab": b"transfer-encoding: \x0bchunked\r\n\r\n",
    "a space before the colon": b"transfer-encoding : chunked\r\n\r\n",
    "a folded value": b"transfer-encoding:\r\n chunked\r\n\r\n",
    "quoted": b'transfer-encoding: "chunked"\r\n\r\n',
    "an underscore": b"transfer_encoding: chunked\r\n\r\n",
}


def codes(site: Site, wire: Wire, before: int, most: int = sys.maxsize) -> list[int]:
    """Of the answers that come, `most` of them at most: until the connection ends, or until it is silent when every
    request that has reached the member has had its own."""
    found: list[int] = []
    wire.tls.settimeout(2)
    ends = time.monotonic() + SECONDS
    while len(found) < most:
        try:
            code = wire.answer().code
        except TimeoutError:
            if len(site.c1.requests()) - before <= found.count(200) or time.monotonic() > ends:
                break
            continue
        if not code:
            break
        found.append(code)
    return found


@pytest.mark.parametrize("framing", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_nothing_is_hidden_behind_a_body(site: Site, reader: Person, framing: bytes) -> None:
    maker = site.person("poster", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["create"]})
    before = len(site.c1.requests())
    with site.wire(maker) as wire:
        wire.send(HEAD + framing + BODY)
        told = codes(site, wire, before)
    seen = site.c1.requests()[before:]
    # What reached the member are the requests that got an answer from it; a hidden one that Envoy took for a request of
    # its own was judged, and refused: whoever creates does not read.
    assert len(seen) == told.count(200), told
    assert all(code in (200, 400, 403, 501) for code in told), told
    assert not [each for each in seen if "hidden" in each.target]
    assert site.ask(reader, C1 + "/api/v1/pods").code == 200


CHUNKS = {
    "an extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "a quoted extension with a line": b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n',
    "a carriage return in an extension": b"5;\rx\r\nhello\r\n0\r\n\r\n",
    "no carriage return": b"5\nhello\n0\n\n",
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size in 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size that overflows": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a space in the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "data longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "a trailer": b"5\r\nhello\r\n0\r\nimpersonate-user: admin\r\nx-remote-user: admin\r\n\r\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
def test_chunks_are_one_body_or_none(site: Site, chunks: bytes) -> None:
    maker = site.person("poster", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["create"]})
    before = len(site.c1.requests())
    with site.wire(maker) as wire:
        wire.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks)
        told = codes(site, wire, before, 1)
    assert told in ([], [200], [400])
    seen = site.c1.requests()[before:]
    assert len(seen) <= 1
    # Envoy passes over what stands between a chunk and its line end, and writes the chunks anew: one reading, one body.
    assert [each.body for each in seen] in ([], [b"hello"], [b"hel"], [b'"\r\nhe'])
    assert b"impersonate-user: admin" not in site.c1.everything()
    assert b"x-remote-user: admin" not in site.c1.everything()


LINES = {
    "absolute form": b"GET https://attacker.example" + C1.encode() + b"/api/v1/x HTTP/1.1\r\nhost: g\r\n\r\n",
    "HTTP/0.9": b"GET " + C1.encode() + b"/api/v1/x\r\n\r\n",
    "HTTP/1.0": b"GET " + C1.encode() + b"/api/v1/x HTTP/1.0\r\nhost: g\r\n\r\n",
    "HTTP/1.2": b"GET " + C1.encode() + b"/api/v1/x HTTP/1.2\r\nhost: g\r\n\r\n",
    "HTTP/2.0": b"GET " + C1.encode() + b"/api/v1/x HTTP/2.0\r\nhost: g\r\n\r\n",
    "no host": b"GET " + C1.encode() + b"/api/v1/x HTTP/1.1\r\n\r\n",
    "two hosts": b"GET " + C1.encode() + b"/api/v1/x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "a tab": b"GET\t" + C1.encode() + b"/api/v1/x HTTP/1.1\r\nhost: g\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\nhost: g\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nhost: g\r\n\r\n",
    "connect": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: g\r\n\r\n",
    "an authority": b"GET c2:443 HTTP/1.1\r\nhost: g\r\n\r\n",
    "plain HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a NUL": b"GET " + C1.encode() + b"/api\x00/v1/x HTTP/1.1\r\nhost: g\r\n\r\n",
    "nothing but lines": b"\r\n\r\n\r\n\r\n" * 40 + b"X",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_an_odd_request_line(site: Site, reader: Person, line: bytes) -> None:
    before = len(site.c1.requests())
    with site.wire(reader) as wire:
        wire.send(line)
        told = codes(site, wire, before, 1)
    assert not told or told[0] in (200, 400, 403, 404, 426, 501, 505)
    for seen in site.c1.requests()[before:]:
        assert seen.target == "/api/v1/x"
        assert seen.all("host") == [f"127.0.0.1:{site.c1.port}"]
    assert len(site.c1.requests()) - before == told.count(200)


FIELDS = {
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "connection": [("connection", "impersonate-user")],
    "keep-alive": [("keep-alive", "timeout=5")],
    "upgrade": [("upgrade", "websocket")],
    "transfer codings": [("te", "gzip")],
    "a line in a value": [("accept", "a\r\nx-remote-user: admin")],
    "a carriage return": [("accept", "a\rx-remote-user: admin")],
    "NUL": [("accept", "a\x00b")],
    "a line in a name": [("accept\r\nx-remote-user", "admin")],
    "upper case": [("X-Remote-User", "admin")],
    "a colon in a name": [("x-a: b", "c")],
    "a space in a name": [("impersonate user", "admin")],
    "no name": [("", "admin")],
    "a second path": [(":path", "/api/v1/secrets")],
    "an unknown pseudo-header": [(":user", "admin")],
    "a pseudo-header at the end": [("accept", "*/*"), (":method", "DELETE")],
    "a second host": [("host", "169.254.169.254")],
    "a wrong length": [("content-length", "5")],
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS.keys())
def test_an_odd_field_of_http2(site: Site, reader: Person, fields: list[tuple[str, str]]) -> None:
    before = len(site.c1.requests())
    answer = site.ask(reader, C1 + "/api/v1/x", *fields, http2=True)
    assert answer.code in (0, 200, 400, 403)
    for seen in site.c1.requests()[before:]:
        assert (seen.method, seen.target) == ("GET", "/api/v1/x")
        assert seen.all("host") == [f"127.0.0.1:{site.c1.port}"]
        assert not {name.lower() for name, _ in seen.headers} & {"x-remote-user", "upgrade", "connection", "keep-alive"}
        assert b"admin" not in seen.raw
    assert len(site.c1.requests()) - before == (answer.code == 200)


@pytest.mark.parametrize("path", ["/a b", C1 + "/api/v1/x HTTP/1.1\r\nx: y", C1 + "/api\t", "*", "", "http://x/", "a"])
def test_an_odd_path_of_http2(site: Site, reader: Person, path: str) -> None:
    before = len(site.c1.requests())
    assert site.ask(reader, path, http2=True).code in (0, 400, 403, 404)
    assert len(site.c1.requests()) == before


# Floods --------------------------------------------------------------------------------------------------------------


def flood(connection: Http2, frames: bytes, times: int) -> None:
    """Send the same bytes again and again, until the other end has had enough."""
    with contextlib.suppress(OSError, ssl.SSLError):
        for _ in range(times):
            connection.tls.sendall(frames)


def closed(connection: Http2) -> bool:
    connection.tls.settimeout(30)
    try:
        while connection.tls.recv(65536):
            pass
    except TimeoutError:
        return False
    except (OSError, ssl.SSLError):
        pass
    return True


def headers_frame(connection: Http2, stream: int, *, end_headers: bool = True) -> bytes:
    block = connection.connection.encoder.encode(
        [(":method", "GET"), (":scheme", "https"), (":authority", "g"), (":path", C1 + "/api/v1/flood")]
    )
    frame = hyperframe.frame.HeadersFrame(stream, data=block)
    frame.flags.add("END_STREAM")
    if end_headers:
        frame.flags.add("END_HEADERS")
    return bytes(frame.serialize())


def still_served(site: Site, reader: Person) -> None:
    assert site.ask(reader, C1 + "/api/v1/pods").code == 200
    assert site.ask(reader, C1 + "/api/v1/pods", http2=True).code == 200


def test_a_client_that_resets_what_it_asks_is_cut_off(site: Site, reader: Person) -> None:
    counter = "http.gateway.downstream_rq_too_many_premature_resets"
    before, seen = site.counter(counter), len(site.c1.requests())
    with site.http2(reader) as connection:
        for number in range(2000):
            stream = 2 * number + 1
            reset = hyperframe.frame.RstStreamFrame(stream, error_code=8).serialize()
            try:
                connection.tls.sendall(headers_frame(connection, stream) + reset)
            except (OSError, ssl.SSLError):
                break
        assert closed(connection)
    eventually(lambda: site.counter(counter) > before)
    assert len(site.c1.requests()) - seen < 2000
    still_served(site, reader)


def test_headers_without_end_are_cut_off(site: Site, reader: Person) -> None:
    before = site.counter("http2.header_overflow") + site.counter("http2.rx_messaging_error")
    with site.http2(reader) as connection:
        connection.tls.sendall(headers_frame(connection, 1, end_headers=False))
        block = connection.connection.encoder.encode([("x-" + "a" * 40, "b" * 60)])
        more = hyperframe.frame.ContinuationFrame(1, data=block).serialize()
        flood(connection, more * 100, 200)
        assert closed(connection)
    eventually(lambda: site.counter("http2.header_overflow") + site.counter("http2.rx_messaging_error") > before)
    still_served(site, reader)


# More than 1,000 answers that wait are a flood. When that many questions come in one read, the HTTP/2 library below
# Envoy finds it first, and Envoy's http2.outbound_control_flood stays as it was; either way the gateway ends the
# connection.
ENDED_HERE = "http.gateway.downstream_cx_destroy_local"
FLOODS = {
    "ping": (hyperframe.frame.PingFrame(0, opaque_data=b"12345678").serialize(), ENDED_HERE),
    "settings": (hyperframe.frame.SettingsFrame(0).serialize(), ENDED_HERE),
    "priority": (
        hyperframe.frame.PriorityFrame(1, depends_on=0, stream_weight=1).serialize(),
        "http2.inbound_priority_frames_flood",
    ),
    "window updates": (
        hyperframe.frame.WindowUpdateFrame(0, window_increment=1).serialize(),
        "http2.inbound_window_update_frames_flood",
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_is_cut_off(site: Site, reader: Person, kind: str) -> None:
    frame, counter = FLOODS[kind]
    before = site.counter(counter)
    with site.http2(reader) as connection:
        # No answer is read, and there are more of them than all buffers between the two hold.
        flood(connection, frame * 8000, 400)
        assert closed(connection)
    eventually(lambda: site.counter(counter) > before)
    still_served(site, reader)


def test_empty_data_is_cut_off(site: Site, reader: Person) -> None:
    before = site.counter("http2.inbound_empty_frames_flood")
    with site.http2(reader) as connection:
        connection.send("POST", C1 + "/api/v1/namespaces/d/pods", end=False)
        flood(connection, hyperframe.frame.DataFrame(1, data=b"").serialize() * 50, 1)
        assert closed(connection)
    eventually(lambda: site.counter("http2.inbound_empty_frames_flood") > before)
    still_served(site, reader)


def test_many_idle_streams_are_bounded(site: Site, reader: Person) -> None:
    """What is beyond the advertised number is refused; nothing reaches the member."""
    with site.http2(reader) as connection:
        connection.tls.settimeout(30)
        state = connection.connection
        while True:
            state.receive_data(connection.tls.recv(65536))
            if state.remote_settings.max_concurrent_streams < 2**31:
                break
        assert state.remote_settings.max_concurrent_streams == 250
        with contextlib.suppress(OSError, ssl.SSLError):
            for number in range(10_000):
                block = state.encoder.encode(
                    [(":method", "POST"), (":scheme", "https"), (":authority", "g"), (":path", C1 + "/api/v1/idle")]
                )
                frame = hyperframe.frame.HeadersFrame(2 * number + 1, data=block, flags=["END_HEADERS"])
                connection.tls.sendall(frame.serialize())
    assert len(site.c1.requests("/api/v1/idle")) <= 250
    still_served(site, reader)


def test_windows_of_one_byte_hold_nobody_up(site: Site, reader: Person) -> None:
    with site.http2(reader) as connection:
        settings = hyperframe.frame.SettingsFrame(0, settings={4: 1})  # SETTINGS_INITIAL_WINDOW_SIZE
        connection.tls.sendall(settings.serialize())
        for number in range(100):
            connection.tls.sendall(headers_frame(connection, 2 * number + 1))
        still_served(site, reader)


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_more_headers_than_anybody_needs_are_refused(site: Site, reader: Person, http2: bool) -> None:
    path = C1 + "/api/v1/too-large"
    crumbs = [("cookie", f"c{number}=x") for number in range(5000)]
    assert site.ask(reader, path, *crumbs, http2=http2).code in (0, 431)
    assert site.ask(reader, path, ("x-large", "a" * 120_000), http2=http2).code in (0, 431)
    assert site.ask(reader, path + "a" * 120_000, http2=http2).code in (0, 400, 414, 431)
    assert not site.c1.requests("/api/v1/too-large")
    still_served(site, reader)


def test_half_a_handshake_and_half_a_request_hold_nobody_up(site: Site, reader: Person) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(50):
            plain = stack.enter_context(socket.create_connection(site.address))
            plain.sendall(b"\x16\x03\x01" + struct.pack("!H", 500) if number % 2 else b"")
        for _ in range(10):
            wire = stack.enter_context(site.wire(reader))
            wire.send(request("GET", C1 + "/api/v1/x")[:-4])
        still_served(site, reader)
