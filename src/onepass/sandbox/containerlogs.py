"""What containers have written: files in the format of the container runtime interface, bounded in size, read live.

A line of a file is `TIME STREAM F|P TEXT`: TIME in RFC 3339 with nanoseconds, STREAM stdout or stderr, P for a part
whose line goes on in the next record of its stream (kubernetes/design-proposals-archive, node/kubelet-cri-logging.md).
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import structlog

log = structlog.get_logger(__name__)

MAX_FILE = 10 << 20  # bytes; what is older than one full file is forgotten
_MAX_LINE = 16 << 10  # bytes of one record
_BLOCK = 1 << 15  # bytes read before other tasks get their turn


@dataclass(frozen=True, slots=True)
class Options:
    """What a reader wants (core/v1 PodLogOptions). `since` in Unix seconds; `tail` in lines, None for all."""

    follow: bool = False
    tail: int | None = None
    since: float | None = None
    timestamps: bool = False
    limit: int | None = None  # bytes
    stream: str = ""  # "stdout" or "stderr"; "" for both


class Log:
    """The log of one run of a container. One writer; readers come and go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rests: dict[str, bytes] = {}
        self._file: BinaryIO | None = None
        self._grown = asyncio.Event()
        self._rotations = 0

    @property
    def older(self) -> Path:
        """The file before the present one."""
        return self._path.with_suffix(".older")

    def open(self) -> None:
        """Begin to write."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab")

    def append(self, stream: str, data: bytes, now: float) -> None:
        """Record what a stream gave; a line is kept back until it ends or is too long."""
        *lines, rest = (self._rests.get(stream, b"") + data).split(b"\n")
        records = b"".join(_record(stream, b"F", line, now) for line in lines)
        while len(rest) >= _MAX_LINE:
            records += _record(stream, b"P", rest[:_MAX_LINE], now)
            rest = rest[_MAX_LINE:]
        self._rests[stream] = rest
        self._write(records)

    def close(self, now: float) -> None:
        """Nothing more comes; followers end."""
        self._write(b"".join(_record(stream, b"P", rest, now) for stream, rest in self._rests.items() if rest))
        if self._file is not None:
            self._file.close()
            self._file = None
        self._tell()

    async def read(self, options: Options) -> AsyncIterator[bytes]:
        """Chunks of the log as `kubectl logs` shows it; with `follow` until the writer closes."""
        left = options.limit
        async for records in self._blocks(options):
            text = b"".join(_shown(record, options) for record in records)
            if left is not None:
                text = text[:left]
                left -= len(text)
            if text:
                yield text
            if left == 0:
                return
            await asyncio.sleep(0)  # a long log does not hold up everything else

    async def _blocks(self, options: Options) -> AsyncIterator[list[bytes]]:
        rotations = self._rotations
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in (self.older, self._path) if path.exists()]
            if options.tail is not None:
                await _seek_tail(files, options.tail, options)
            for file in files:
                for records in _read(file):
                    yield records
            current = files[-1] if files else None
            while options.follow:
                grown, ended = self._grown, self._file is None
                if self._rotations != rotations:
                    rotations = self._rotations
                    for records in _read(current) if current else ():
                        yield records
                    current = None
                if current is None and self._path.exists():
                    current = stack.enter_context(self._path.open("rb"))
                for records in _read(current) if current else ():
                    yield records
                if ended:
                    return
                await grown.wait()

    def _write(self, records: bytes) -> None:
        if self._file is None or not records:
            return
        try:
            self._file.write(records)
            self._file.flush()
            if self._file.tell() >= MAX_FILE:
                self._file.close()
                self._path.replace(self.older)
                self._file = self._path.open("ab")
                self._rotations += 1
        except OSError as error:
            log.warning("output of a container is lost", path=str(self._path), error=str(error))
        self._tell()

    def _tell(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


def _record(stream: str, tag: bytes, line: bytes, now: float) -> bytes:
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    return b"%s %s %s %s\n" % (moment.encode(), stream.encode(), tag, line)


def _fields(record: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    moment, stream, tag, text = record.rstrip(b"\n").split(b" ", 3)
    return moment, stream, tag, text


def _wanted(record: bytes, options: Options) -> bool:
    moment, stream, _, _ = _fields(record)
    if options.stream and stream != options.stream.encode():
        return False
    return options.since is None or _unix(moment) >= options.since


def _unix(moment: bytes) -> float:
    return datetime.strptime(moment[:26].decode(), "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC).timestamp()


def _shown(record: bytes, options: Options) -> bytes:
    if not _wanted(record, options):
        return b""
    moment, _, tag, text = _fields(record)
    end = b"\n" if tag == b"F" else b""
    return (moment + b" " if options.timestamps else b"") + text + end


async def _seek_tail(files: Sequence[BinaryIO], tail: int, options: Options) -> None:
    """Puts every file at the first record of the last `tail` ones."""
    starts: deque[tuple[int, int]] = deque([(0, 0)], maxlen=tail + 1)  # where records begin, and the end of the last
    for index, file in enumerate(files):
        for records in _read(file):
            at = file.tell() - sum(map(len, records))
            for record in records:
                at += len(record)
                if _wanted(record, options):
                    starts.append((index, at))
            await asyncio.sleep(0)
    first, offset = starts[0] if len(starts) == tail + 1 else (0, 0)
    for index, file in enumerate(files):
        if index < first:
            file.seek(0, os.SEEK_END)
        else:
            file.seek(offset if index == first else 0)


def _read(file: BinaryIO) -> Iterator[list[bytes]]:
    """Whole records from where the file stands, some at a time; leaves it at the end of the last one."""
    while True:
        records = file.readlines(_BLOCK)
        if records and not records[-1].endswith(b"\n"):
            file.seek(-len(records.pop()), os.SEEK_CUR)
        if not records:
            return
        yield records
