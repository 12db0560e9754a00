"""Reads a gateway's audit log."""

import json
from collections.abc import Callable
from typing import Any  # a record is JSON

from tests.e2e.conftest import Gateway
from tests.waiting import eventually

Record = dict[str, Any]


def records(gateway: Gateway) -> list[Record]:
    """Every whole record so far, in what was set aside too."""
    found: list[Record] = []
    for path in sorted(gateway.data_dir.glob("audit*.log")):
        # By the newline alone: other characters that end lines may stand in a record.
        lines = path.read_bytes().split(b"\n")
        found += [json.loads(line) for line in lines[:-1]]
    return found


def awaited(gateway: Gateway, wanted: Callable[[Record], bool], count: int = 1, *, since: int = 0) -> list[Record]:
    """The records that are `wanted`, once there are `count` of them; the first `since` are not looked at."""
    found: list[Record] = []

    def there() -> bool:
        found[:] = [record for record in records(gateway)[since:] if wanted(record)]
        return len(found) >= count

    eventually(there, f"{len(found)} records instead of {count}")
    return found
