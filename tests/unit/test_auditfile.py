"""Setting the audit log aside: nothing is lost, what is old goes, and a deaf Envoy is told again."""

import asyncio
from pathlib import Path

import httpx2
import structlog.testing

from onepass.runtime.auditfile import AuditFile


def looking(file: AuditFile, codes: list[int]) -> list[str]:
    """Look once for each status code that Envoy's admin interface answers with; the paths it was asked for."""
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(f"{request.method} {request.url.path}")
        return httpx2.Response(codes[len(asked) - 1])

    async def look() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
            for _ in codes:
                await file.look(client)

    asyncio.run(look())
    return asked


def test_a_file_that_has_grown_is_renamed_and_envoy_told(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.log", 10, 2, "unused")
    file.prepare()
    assert (file.path.stat().st_mode & 0o777) == 0o600
    assert looking(file, [200]) == []
    written = []
    for number in range(4):
        written.append(f"record {number} of the log\n")
        file.path.write_text(written[-1])
        assert looking(file, [200]) == ["POST /reopen_logs"]
        assert file.path.read_text() == ""
        assert (file.path.stat().st_mode & 0o777) == 0o600
    assert [path.read_text() for path in file.backups()] == written[-2:]


def test_an_envoy_that_does_not_answer_is_told_again_and_nothing_is_renamed_twice(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.log", 10, 1, "unused")
    file.prepare()
    file.path.write_text("a record that is long enough\n")
    assert looking(file, [503, 503, 200]) == ["POST /reopen_logs"] * 3
    assert len(file.backups()) == 1
    assert looking(file, [200]) == []


def test_a_file_that_was_taken_away_comes_back(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.log", 10, 0, "unused")
    looking(file, [200])
    assert looking(file, [200]) == ["POST /reopen_logs"]
    assert file.path.exists()


def test_lost_records_are_told_of_once_and_their_end_too(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.log", 10, 0, "unused")
    # Writes that failed, and those that did not, at each look; None where Envoy does not answer.
    counts = iter([(0, 4), (3, 4), (7, 5), None, (7, 5), (7, 6), (1, 0), (1, 2)])
    expected = ["", "error", "", "", "", "warning", "error", "warning"]  # the seventh is a new Envoy

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.params["filter"] == "^filesystem.write_"
        if (count := next(counts)) is None:
            return httpx2.Response(503)
        named = zip(("failed", "completed"), count, strict=True)
        text = "".join(f"filesystem.write_{name}: {number}\n" for name, number in named)
        return httpx2.Response(200, text=text)

    async def ask() -> list[str]:
        told = []
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
            for _ in expected:
                with structlog.testing.capture_logs() as logged:
                    await file.ask(client)
                told.append("".join(each["log_level"] for each in logged))
        return told

    assert asyncio.run(ask()) == expected
