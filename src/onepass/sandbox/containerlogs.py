"""What containers have written: files in the format of the container runtime interface, bounded in size, read live.

A line of a file is `TIME STREAM F|P TEXT`: TIME in RFC 3339 with nanoseconds, STREAM stdout or stderr, P for a part
whose line goes on in the next record of its stream (kubernetes/design-proposals-archive, node/kubelet-cri-logging.md).
"""

import asyncio
import contextlib
import os
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
        whole, part = _prefix(stream, "F", now), _prefix(stream, "P", now)
        records = [whole + line + b"\n" for line in lines]
        while len(rest) >= _MAX_LINE:
            records.append(part + rest[:_MAX_LINE] + b"\n")
            rest = rest[_MAX_LINE:]
        self._rests[stream] = rest
        self._write(b"".join(records))

    def close(self, now: float) -> None:
        """Nothing more comes; followers end."""
        rests = [_prefix(stream, "P", now) + rest + b"\n" for stream, rest in self._rests.items() if rest]
        self._write(b"".join(rests))
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
                _seek_tail(files, options.tail)
            for file in files:
                # Not beyond the present end: a container may write faster than its log is read.
                for records in _read(file, os.fstat(file.fileno()).st_size):
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


def _prefix(stream: str, tag: str, now: float) -> bytes:
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    return f"{moment} {stream} {tag} ".encode()


def _unix(moment: bytes) -> float:
    return datetime.strptime(moment[:26].decode(), "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC).timestamp()


def _shown(record: bytes, options: Options) -> bytes:
    moment, stream, tag, text = record.split(b" ", 3)
    if options.stream and stream != options.stream.encode():
        return b""
    if options.since is not None and _unix(moment) < options.since:
        return b""
    line = text if tag == b"F" else text[:-1]
    return moment + b" " + line if options.timestamps else line


def _seek_tail(files: Sequence[BinaryIO], tail: int) -> None:
    """Puts every file at the first record of the last `tail` ones, looking for it from the end."""
    for file in reversed(files):
        tail -= _seek_back(file, tail)


def _seek_back(file: BinaryIO, lines: int) -> int:
    """Puts a file at the start of its last `lines` lines, or at its beginning; how many lines that are."""
    at, seen = file.seek(0, os.SEEK_END), 0
    while at > 0:
        size = min(_BLOCK, at)
        at = file.seek(at - size)
        block, newline = file.read(size), size
        while (newline := block.rfind(b"\n", 0, newline)) >= 0:
            seen += 1
            if seen > lines:  # the end of the line before
                file.seek(at + newline + 1)
                return lines
    file.seek(0)
    return seen


def _read(file: BinaryIO, end: int | None = None) -> Iterator[list[bytes]]:
    """Whole records from where the file stands up to `end`, some at a time; leaves it at the end of the last one."""
    while end is None or file.tell() < end:
        records = file.readlines(_BLOCK)
        if records and not records[-1].endswith(b"\n"):
            file.seek(-len(records.pop()), os.SEEK_CUR)
        if not records:
            return
        yield records
