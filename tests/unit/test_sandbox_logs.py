"""Container logs: what was written comes back as asked, whole, cut, followed, and across a rotation."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from onepass.api.errors import ApiError
from onepass.sandbox import containerlogs
from onepass.sandbox.containerlogs import Log, Options
from onepass.sandbox.streams import logrequests

NOW = 1_700_000_000.25


async def read(log: Log, options: Options | None = None) -> bytes:
    return b"".join([chunk async for chunk in log.read(options or Options())])


def written(path: Path, *parts: tuple[str, bytes, float]) -> Log:
    log = Log(path / "0.log")
    log.open()
    for stream, data, now in parts:
        log.append(stream, data, now)
    log.close(parts[-1][2])
    return log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return written(
        tmp_path,
        ("stdout", b"one\ntwo\n", NOW),
        ("stderr", b"three\n", NOW + 10),
        ("stdout", b"four", NOW + 20),
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), b"one\ntwo\nthree\nfour"),
        (Options(tail=0), b""),
        (Options(tail=2), b"three\nfour"),
        (Options(tail=4), b"one\ntwo\nthree\nfour"),
        (Options(tail=100), b"one\ntwo\nthree\nfour"),
        (Options(limit=5), b"one\nt"),
        (Options(tail=2, limit=3), b"thr"),
        (Options(since=NOW + 10), b"three\nfour"),
        (Options(since=NOW + 11), b"four"),
        (Options(since=NOW + 100), b""),
        (Options(stream="stderr"), b"three\n"),
        (Options(stream="stdout"), b"one\ntwo\nfour"),
        (Options(tail=1, timestamps=True), b"2023-11-14T22:13:40.250000000Z four"),
        (Options(follow=True, tail=1), b"four"),
    ],
)
async def test_a_log_is_read_as_asked(log: Log, options: Options, expected: bytes) -> None:
    assert await read(log, options) == expected


async def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert await read(Log(tmp_path / "none.log"), Options(follow=True)) == b""


@given(st.lists(st.binary(max_size=40), max_size=12), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_what_is_written_comes_back_however_it_was_cut(tmp_path: Path, parts: Sequence[bytes], early: bool) -> None:
    path = tmp_path / "cut"
    log = Log(path / "0.log")
    (path / "0.log").unlink(missing_ok=True)
    log.open()
    for part in parts:
        log.append("stdout", part, NOW)
    log.close(NOW)
    assert asyncio.run(read(log)) == b"".join(parts)


async def test_a_line_too_long_for_a_record_comes_back_as_one(tmp_path: Path) -> None:
    line = b"x" * 100_000 + b"\n"
    log = written(tmp_path, ("stdout", line, NOW))
    assert await read(log) == line


async def test_streams_do_not_mix_within_a_line(tmp_path: Path) -> None:
    log = written(tmp_path, ("stdout", b"a", NOW), ("stderr", b"b\n", NOW), ("stdout", b"a\n", NOW))
    assert await read(log) == b"b\naa\n"


async def test_a_follower_sees_each_line_once_also_across_rotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containerlogs, "MAX_FILE", 400)
    log = Log(tmp_path / "0.log")
    log.open()
    log.append("stdout", b"line 0\n", NOW)
    following = asyncio.create_task(read(log, Options(follow=True)))
    for number in range(1, 100):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        log.append("stdout", b"line %d\n" % number, NOW)
    log.close(NOW)
    seen = (await following).decode().splitlines()
    assert seen == [f"line {number}" for number in range(100)]
    assert log.older.exists()


async def test_what_is_older_than_two_files_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containerlogs, "MAX_FILE", 1000)
    log = written(tmp_path, *(("stdout", b"line %d\n" % number, NOW) for number in range(100)))
    kept = (await read(log)).decode().splitlines()
    assert kept[-1] == "line 99"
    assert 20 < len(kept) < 60
    assert (await read(log, Options(tail=30))).decode().splitlines() == kept[-30:]


async def test_a_reader_comes_to_an_end_beside_a_writer_that_never_stops(tmp_path: Path) -> None:
    log = Log(tmp_path / "0.log")
    log.open()
    log.append("stdout", b"before\n", NOW)
    seen = b""
    async for chunk in log.read(Options()):
        seen += chunk
        log.append("stdout", b"after\n", NOW)
    log.close(NOW)
    assert seen == b"before\n"


def request(query: str) -> Request:
    return Request({"type": "http", "method": "GET", "query_string": query.encode(), "headers": []})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Options()),
        ("follow=true&timestamps=1", Options(follow=True, timestamps=True)),
        ("tailLines=0&limitBytes=7", Options(tail=0, limit=7)),
        ("sinceSeconds=60", Options(since=NOW - 60)),
        ("sinceTime=2023-11-14T22:13:20Z", Options(since=1_700_000_000.0)),
        ("stream=Stderr", Options(stream="stderr")),
    ],
)
def test_the_options_of_a_request_are_read(query: str, expected: Options) -> None:
    assert logrequests.read_options(request(query), NOW) == expected


@pytest.mark.parametrize(
    "query",
    [
        "tailLines=-1",
        "tailLines=x",
        "limitBytes=0",
        "sinceSeconds=0",
        "sinceSeconds=" + "9" * 30,
        "sinceTime=yesterday",
        "sinceTime=2023-11-14T22:13:20Z&sinceSeconds=1",
        "stream=Stdin",
        "stream=Stdout&tailLines=1",
    ],
)
def test_options_that_make_no_sense_are_refused(query: str) -> None:
    with pytest.raises(ApiError) as refused:
        logrequests.read_options(request(query), NOW)
    assert refused.value.code == 400
