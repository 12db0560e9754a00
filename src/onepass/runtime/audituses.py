"""Which passes were used, read from the end of the audit log that Envoy writes."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import orjson

_PASS = b'"access.karpor.io/pass":"'
_BEHIND = 64 << 20  # bytes: what lies further back is passed over, so that a flood delays nothing for long
_CHUNK = 4 << 20


@dataclass(slots=True)
class AuditUses:
    """Reads what was added since the last time; begins at the end of what is there."""

    path: Path
    _file: BinaryIO | None = field(default=None, init=False)
    _rest: bytes = field(default=b"", init=False)  # the beginning of a line that is not whole yet

    def begin(self) -> None:
        """Take what is there now as read."""
        self._file = self._open()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    async def news(self) -> Mapping[str, float]:
        """The last use (Unix seconds) of each pass that was used since the last call."""
        return await asyncio.to_thread(self._news)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _news(self) -> Mapping[str, float]:
        found: dict[str, float] = {}
        if self._file is not None:
            self._read(self._file, found)
        fresh = self._open()
        if fresh is None:
            return found
        if self._file is not None and os.path.sameopenfile(self._file.fileno(), fresh.fileno()):
            fresh.close()
            return found
        # The file was set aside: Envoy may have written to the old one until a moment ago.
        if self._file is not None:
            self._read(self._file, found)
            self._file.close()
        self._file, self._rest = fresh, b""
        self._read(fresh, found)
        return found

    def _open(self) -> BinaryIO | None:
        try:
            return self.path.open("rb")
        except OSError:
            return None

    def _read(self, file: BinaryIO, found: dict[str, float]) -> None:
        size = os.fstat(file.fileno()).st_size
        if size - file.tell() > _BEHIND:
            file.seek(size - _BEHIND)
            self._rest = b""
        while chunk := file.read(_CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                if _PASS in line:
                    _note(line, found)


def _note(line: bytes, found: dict[str, float]) -> None:
    """Put down the use that a record tells of; one that cannot be read tells of none."""
    try:
        event = orjson.loads(line)
        name = event["annotations"]["access.karpor.io/pass"]
        moment = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
    except (ValueError, KeyError, TypeError):
        return
    if isinstance(name, str) and event["annotations"].get("authorization.k8s.io/decision") == "allow":
        found[name] = max(moment, found.get(name, moment))
