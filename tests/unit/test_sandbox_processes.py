"""Containers as processes: streams, terminals, exit statuses, and that nothing of them is left."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from onepass.sandbox import processes
from onepass.sandbox.descriptors import Descriptor
from onepass.sandbox.processes import CannotStart, Command, Process

SECONDS = 120


def command(*arguments: str, directory: Path, tty: bool = False, stdin: bool = False) -> Command:
    return Command(arguments, directory, processes.clean_environment(directory, "pod", {}), tty=tty, stdin=stdin)


@asynccontextmanager
async def running(*arguments: str, directory: Path, tty: bool = False, stdin: bool = False) -> AsyncIterator[Process]:
    process = Process(command(*arguments, directory=directory, tty=tty, stdin=stdin))
    try:
        async with asyncio.timeout(SECONDS):
            yield process
    finally:
        await process.close()


async def everything(source: Descriptor | None) -> bytes:
    assert source is not None
    content = b""
    while data := await source.read():
        content += data
    return content


async def line(source: Descriptor) -> bytes:
    content = b""
    while not content.endswith(b"\n"):
        data = await source.read()
        assert data, f"the end came after {content!r}"
        content += data
    return content


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143), ("nosuch", 127)]
)
async def test_a_command_tells_how_it_ended(tmp_path: Path, script: str, code: int) -> None:
    async with running("sh", "-c", script, directory=tmp_path) as process:
        assert await process.wait() == code


async def test_the_two_outputs_stay_apart(tmp_path: Path) -> None:
    async with running("sh", "-c", "echo out; echo err >&2", directory=tmp_path) as process:
        assert await everything(process.stdout) == b"out\n"
        assert await everything(process.stderr) == b"err\n"


async def test_input_arrives_and_ends(tmp_path: Path) -> None:
    content = os.urandom(1_000_000)
    async with running("cat", directory=tmp_path, stdin=True) as process:
        assert process.stdin is not None
        async with asyncio.TaskGroup() as group:
            echoed = group.create_task(everything(process.stdout))
            await process.stdin.write(content)
            process.stdin.close()
        assert echoed.result() == content
        assert await process.wait() == 0


async def test_input_that_nobody_reads_is_a_broken_pipe(tmp_path: Path) -> None:
    async with running("sh", "-c", "exec <&-; echo closed; sleep 100", directory=tmp_path, stdin=True) as process:
        await line(process.stdout)
        assert process.stdin is not None
        with pytest.raises(BrokenPipeError):
            await process.stdin.write(b"x" * 1_000_000)


async def test_a_terminal_is_one_has_a_size_and_passes_signals_on(tmp_path: Path) -> None:
    script = "trap 'stty size; exit 4' INT; tty >/dev/null && echo terminal; while true; do sleep 0.05; done"
    async with running("sh", "-c", script, directory=tmp_path, tty=True) as process:
        assert process.terminal is not None
        assert await line(process.terminal) == b"terminal\r\n"
        process.terminal.resize(33, 101)
        await process.terminal.write(b"\x03")
        assert b"33 101" in await everything(process.terminal)
        assert await process.wait() == 4


async def test_the_environment_is_clean_and_the_home_is_the_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEPASS_SECRET", "swordfish")
    async with running("env", directory=tmp_path) as process:
        told = (await everything(process.stdout)).decode()
    assert "swordfish" not in told
    assert f"HOME={tmp_path}\n" in told
    assert f"PWD={tmp_path}" in told or "PWD" not in told


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        ("nosuchprogram", 127, "executable file not found in $PATH"),
        ("/no/such", 127, "no such file or directory"),
        ("./plain", 126, "permission denied"),
        ("", 127, "executable file not found"),
    ],
)
async def test_what_cannot_run_says_why(tmp_path: Path, program: str, code: int, why: str) -> None:
    (tmp_path / "plain").write_text("no program")
    with pytest.raises(CannotStart, match=why.replace("$", r"\$")) as refused:
        Process(command(program, directory=tmp_path))
    assert refused.value.code == code


async def test_a_null_byte_in_an_argument_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="null byte"):
        Process(command("echo", "a\0b", directory=tmp_path))


async def test_no_descriptor_is_left_of_what_could_not_start(tmp_path: Path) -> None:
    def held() -> set[tuple[str, str]]:
        """Each descriptor and what it leads to: what other tests have left may be closed meanwhile."""
        found = set()
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # that of this look itself
                found.add((each.name, str(each.readlink())))
        return found

    before = held()
    for tty in (False, True):
        with pytest.raises(CannotStart):
            Process(Command(("true",), tmp_path / "absent", {"PATH": os.defpath}, tty=tty, stdin=True))
    assert held() - before == set()
    async with running("true", directory=tmp_path, stdin=True) as process:
        await process.wait()
    assert held() - before == set()


async def test_a_daemon_ends_with_its_container(tmp_path: Path) -> None:
    script = "setsid sh -c 'sleep 1000 & echo $!; wait' & wait"
    async with running("sh", "-c", script, directory=tmp_path) as process:
        daemon = int(await line(process.stdout))
        assert alive(daemon)
        process.kill()
        assert await process.wait() == 137
        assert not alive(daemon)


async def test_what_a_command_leaves_behind_goes_when_it_ends(tmp_path: Path) -> None:
    script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!"
    async with running("sh", "-c", script, directory=tmp_path) as process:
        left = int(await line(process.stdout))
        assert await process.wait() == 0
        assert not alive(left)


async def test_terminating_asks_and_killing_does_not(tmp_path: Path) -> None:
    script = "trap 'echo asked' TERM; echo up; while true; do sleep 0.05; done"
    async with running("sh", "-c", script, directory=tmp_path) as process:
        assert await line(process.stdout) == b"up\n"
        process.terminate()
        assert await line(process.stdout) == b"asked\n"
        process.kill()
        assert await process.wait() == 137
        process.terminate()  # too late, and no harm


PARENT = """
import asyncio, sys
from pathlib import Path
from onepass.sandbox.processes import Command, Process

async def main():
    process = Process(Command(("sh", "-c", "setsid sleep 1000 & echo $!; wait"), Path("."), {"PATH": sys.argv[1]}))
    print((await process.stdout.read()).decode().strip(), process.pid, flush=True)
    await process.wait()

asyncio.run(main())
"""


def test_containers_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, os.environ["PATH"]], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert parent.stdout is not None
        left = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(left) == 2
        assert all(alive(pid) for pid in left)
        parent.send_signal(signal.SIGKILL)
        until(lambda: not any(alive(pid) and not _zombie(pid) for pid in left))
    finally:
        parent.kill()
        parent.communicate()


def _zombie(pid: int) -> bool:
    """Nobody may be there to collect an orphan in a container without an init of its own."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True
