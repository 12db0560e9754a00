"""When a pass was last used: read from the audit log across its rotation, written seldom."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from onepass.api.meta import Object
from onepass.controllers import used
from onepass.controllers.used import Used
from onepass.registry.changes import Changes, Version
from onepass.runtime.audituses import AuditUses

NOW = 1_800_000_000.0
AT = "2027-01-15T08:00:0{}.000000Z"


def record(name: str, second: int = 0, decision: str = "allow") -> str:
    annotations = {"authorization.k8s.io/decision": decision, "access.karpor.io/pass": name}
    event = {"annotations": annotations, "requestReceivedTimestamp": AT.format(second)}
    return json.dumps(event, separators=(",", ":")) + "\n"


async def test_uses_are_read_once_whole_and_across_rotation(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(record("before"))
    with closing(AuditUses(log)) as uses:
        uses.begin()
        assert await uses.news() == {}
        half = record("b", 2)
        with log.open("a") as file:
            file.write(record("a", 3) + record("a", 1) + 'no json, "access.karpor.io/pass":"x"\n' + half[:40])
        assert await uses.news() == {"a": NOW + 3}
        with log.open("a") as file:
            file.write(half[40:] + record("refused", 4, "forbid"))
        log.rename(tmp_path / "aside.log")
        with (tmp_path / "aside.log").open("a") as file:
            file.write(record("late", 5))
        log.write_text(record("c", 6))
        assert await uses.news() == {"b": NOW + 2, "late": NOW + 5, "c": NOW + 6}
        assert await uses.news() == {}


async def test_a_log_that_is_not_there_tells_nothing_until_it_is(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    with closing(AuditUses(log)) as uses:
        uses.begin()
        assert await uses.news() == {}
        log.write_text(record("a"))
        assert await uses.news() == {"a": NOW}


class Book:
    """Passes, uses that are told one after the other, and the statuses that were written."""

    def __init__(self, *news: Mapping[str, float]) -> None:
        self.told = list(news)
        self.written: list[tuple[str, Object]] = []

    async def news(self) -> Mapping[str, float]:
        return self.told.pop(0) if self.told else {}

    def follow(self, versions: Mapping[str, Version]) -> Changes:
        return Changes(versions)

    def count(self, key: str) -> int:
        return 0

    def get(self, key: str, name: str, namespace: str = "") -> Object | None:
        return {"metadata": {"name": name, "uid": "u"}} if name != "gone" else None

    def list(self, key: str) -> list[Object]:
        return []

    async def write(self, name: str, uid: str, status: Callable[[Object], Object]) -> None:
        self.written.append((name, status({"inForce": True})))


async def test_a_pass_is_written_once_a_minute_and_nothing_is_forgotten() -> None:
    book = Book({"a": NOW, "gone": NOW}, {"a": NOW + 5}, {}, {"b": NOW + 8})
    moment = [NOW]
    controller = Used(book, book, book, lambda: moment[0])
    for _ in range(4):
        await controller.look()
        moment[0] += 5
    assert book.written == [
        ("a", {"inForce": True, "lastUsed": "2027-01-15T08:00:00Z"}),
        ("b", {"inForce": True, "lastUsed": "2027-01-15T08:00:08Z"}),
    ]
    moment[0] = NOW + 60
    await controller.look()
    assert book.written[2:] == [("a", {"inForce": True, "lastUsed": "2027-01-15T08:00:05Z"})]


def test_a_later_use_stands() -> None:
    status: Object = {"lastUsed": "2027-01-15T09:00:00Z"}
    assert used.later(status, NOW) is status
