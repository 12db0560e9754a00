"""Keys behind a KMS v2 plugin, asked for at a real gRPC server."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.programs import golang, kubemembers
from tests.programs.kmsplugin import NOTE, Kms

from onepass.pki import kmsv2, sealing, sealkeys
from onepass.pki.kmsv2 import Fields, PluginRefused
from onepass.pki.sealing import KeyAway, KeyMissing
from onepass.runtime.kmsplugin import Plugin
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealsources import Keys

CONTEXT = b"context"
SECONDS = 120.0
QUICK = (0.05, 0.05)


class Site:
    """A sealer on a plugin, running."""

    def __init__(self, path: Path, timeout: float = SECONDS, *others: Keys) -> None:
        self.plugin = Plugin(f"unix://{path}", str(path), timeout, QUICK)
        self.moved = asyncio.Event()
        self.sealer = Sealer([self.plugin, *others], self.moved.set)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not holds():  # noqa: ASYNC110  another process, as it were, gets there
                await asyncio.sleep(0.01)

    def opens(self, sealed: bytes) -> bool:
        try:
            return self.sealer.unseal(sealed, CONTEXT) == b"secret"
        except KeyAway:
            return False

    def why(self, sealed: bytes) -> str:
        with pytest.raises(KeyAway) as caught:
            self.sealer.unseal(sealed, CONTEXT)
        return str(caught.value)


@asynccontextmanager
async def site(path: Path, timeout: float = SECONDS, *others: Keys) -> AsyncIterator[Site]:
    it = Site(path, timeout, *others)
    running = asyncio.create_task(it.sealer.run())
    try:
        await it.sealer.settled(SECONDS)
        yield it
    finally:
        running.cancel()
        await asyncio.wait((running,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kms.sock"


async def sealed_by(kms: Kms, path: Path, count: int = 1) -> list[bytes]:
    """What earlier processes have sealed, one after the other."""
    found = []
    with kms.serving(path):
        for _ in range(count):
            async with site(path) as it:
                found.append(it.sealer.seal(b"secret", CONTEXT))
    return found


async def test_a_seed_is_encrypted_once_and_decrypted_once(path: Path) -> None:
    kms = Kms()
    with kms.serving(path):
        async with site(path) as it:
            sealed = [it.sealer.seal(b"secret", CONTEXT) for _ in range(100)]
            assert [it.sealer.unseal(each, CONTEXT) for each in sealed] == [b"secret"] * 100
            assert (kms.calls["Encrypt"], kms.calls["Decrypt"]) == (1, 0)
            assert it.plugin.keys == ("kms:key-1",)
            assert it.sealer.key(sealed[0]) == "kms:key-1"
        async with site(path) as it:
            assert it.why(sealed[0]).endswith("which is being asked")
            for each in sealed:
                it.sealer.at_hand(each)
            await it.sealer.settled(SECONDS)
            assert all(map(it.opens, sealed))
            assert (kms.calls["Encrypt"], kms.calls["Decrypt"]) == (2, 1)
            assert all(map(it.sealer.fresh, sealed)), "the key is the same: nothing is to be sealed anew"
    assert not [seed for seed in kms.seen for each in sealed if seed in each]


async def test_another_key_id_makes_a_new_seed_and_the_old_one_still_opens(path: Path) -> None:
    kms = Kms()
    with kms.serving(path):
        async with site(path) as it:
            old = it.sealer.seal(b"secret", CONTEXT)
            it.moved.clear()
            kms.rotate("key-2")
            await it.until(it.moved.is_set)
            assert it.plugin.keys == ("kms:key-2", "kms:key-1")
            assert (it.opens(old), it.sealer.fresh(old)) == (True, False)
            assert it.sealer.fresh(it.sealer.seal(b"secret", CONTEXT))


async def test_a_plugin_that_is_away_at_the_start_is_waited_for(path: Path) -> None:
    kms = Kms()
    (sealed,) = await sealed_by(kms, path)
    async with site(path) as it:
        assert "which does not answer" in it.why(sealed)
        with pytest.raises(KeyAway, match=r"no key to seal it with: unix:///.*kms\.sock does not answer"):
            it.sealer.seal(b"x", CONTEXT)
        assert kms.calls["Decrypt"] == 0
        with kms.serving(path):
            await it.until(lambda: it.opens(sealed))
            assert it.moved.is_set()
            assert it.opens(it.sealer.seal(b"secret", CONTEXT))


async def test_a_plugin_that_goes_away_keeps_nothing_from_working(path: Path) -> None:
    kms = Kms()
    (earlier,) = await sealed_by(kms, path)
    async with site(path) as it:
        with kms.serving(path):
            await it.until(lambda: it.plugin.seed)
        await it.until(lambda: it.plugin.why)
        assert it.opens(it.sealer.seal(b"secret", CONTEXT))
        assert not it.opens(earlier), "it had not been asked for"
        with kms.serving(path):
            await it.until(lambda: it.opens(earlier))
            await it.until(lambda: not it.plugin.why)


async def test_a_plugin_that_hangs_is_given_up_and_holds_up_nobody(path: Path) -> None:
    kms = Kms()
    found = await sealed_by(kms, path, 3)
    kms.hanging = threading.Event()
    with kms.serving(path):
        async with site(path, 0.2) as it:
            assert all("did not answer Status within" in it.why(each) for each in found for _ in range(1000))
            assert kms.calls["Decrypt"] == 0, "none of the three thousand has asked"
            kms.hanging.set()
            await it.until(lambda: all(map(it.opens, found)))


async def test_a_lost_key_closes_what_it_sealed_and_nothing_else(path: Path) -> None:
    kms, local = Kms(), sealkeys.generate()
    beside = Keys("file:beside", lambda: local)
    (lost,) = await sealed_by(kms, path)
    del kms.keys["key-1"]
    kms.rotate("key-2")
    mine = Sealer([beside]).seal(b"secret", CONTEXT)
    foreign = Sealer([Keys("other", sealkeys.generate)]).seal(b"secret", CONTEXT)
    with kms.serving(path):
        async with site(path, SECONDS, beside) as it:
            it.sealer.at_hand(lost)
            await it.sealer.settled(SECONDS)
            told = it.why(lost)
            assert "the key kms:key-1 is kept by the KMS plugin at unix:///" in told
            assert "refuses Decrypt: INVALID_ARGUMENT no key key-1" in told
            assert it.opens(mine)
            with pytest.raises(KeyMissing):
                it.sealer.unseal(foreign, CONTEXT)
            assert it.opens(it.sealer.seal(b"secret", CONTEXT))


async def test_altered_records_never_open(path: Path) -> None:
    kms = Kms()
    (sealed,) = await sealed_by(kms, path)
    wrapped = sealing.parse(sealed).wrapped
    twisted = sealed.replace(wrapped.ciphertext, wrapped.ciphertext[:-1] + bytes([wrapped.ciphertext[-1] ^ 1]))
    renamed = sealed.replace(b"\x00noted", b"\x01noted")
    with kms.serving(path):
        async with site(path) as it:
            for each in (twisted, renamed, sealed):
                it.sealer.at_hand(each)
            await it.sealer.settled(SECONDS)
            assert "not encrypted here" in it.why(twisted)
            assert "the annotations are others" in it.why(renamed)
            assert it.opens(sealed)
            with pytest.raises(sealing.Damaged):
                it.sealer.unseal(sealed, b"another place")


def fields(**given: object) -> Callable[[Fields], Fields]:
    whole: dict[str, object] = {"version": "v2", "healthz": "ok", "key_id": "key-1", "ciphertext": b"c" * 60}
    return lambda _asked: Fields(**{**whole, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "answer", "why"),
    [
        ("Status", fields(version="v1"), "speaks version 'v1' of the KMS API, and v2 is needed"),
        ("Status", fields(healthz="the HSM is\x1b[31m off"), "says that it is not well: 'the HSM is[31m off'"),
        ("Status", fields(key_id=""), "names its key with 0 bytes"),
        ("Status", fields(key_id="k" * 1025), "names its key with 1025 bytes, and 1 to 1024 are allowed"),
        ("Encrypt", fields(ciphertext=b""), "encrypted to 0 bytes, and 1 to 1024 are allowed"),
        ("Encrypt", fields(ciphertext=b"c" * 1025), "encrypted to 1025 bytes"),
        ("Encrypt", fields(key_id="key-2"), "encrypts with another key than it says"),
        ("Encrypt", fields(annotations={"plain": b""}), "whose name is no fully qualified domain name"),
        ("Encrypt", fields(annotations={"a.b/c": b""}), "whose name is no fully qualified domain name"),
        ("Encrypt", fields(annotations={"a.example": b"a" * 32765}), "annotations of more than 32768 bytes"),
        ("Encrypt", fields(annotations={"a.example": b"a" * 70000}), "refuses Encrypt: RESOURCE_EXHAUSTED"),
    ],
)
async def test_an_answer_that_kube_apiserver_would_refuse_is_refused(
    path: Path, method: str, answer: Callable[[Fields], Fields], why: str
) -> None:
    kms = Kms(answer={method: answer})
    with kms.serving(path):
        async with site(path) as it:
            assert why in it.plugin.why
            assert it.plugin.seed is None
            kms.answer.clear()
            await it.until(lambda: it.plugin.seed)


async def test_a_plugin_that_repeats_the_seed_in_an_error_is_not_repeated(path: Path) -> None:
    heard: list[str] = []

    def blurt(asked: Fields) -> Fields:
        heard.append(base64.b64encode(asked.plaintext).decode())
        raise KeyError(f"cannot encrypt {heard[-1]}")

    with Kms(answer={"Encrypt": blurt}).serving(path):
        async with site(path) as it:
            await it.until(lambda: heard)
            assert it.plugin.why == "refuses Encrypt: INVALID_ARGUMENT"


async def test_a_decrypted_thing_that_is_no_seed_is_refused(path: Path) -> None:
    kms = Kms()
    (sealed,) = await sealed_by(kms, path)
    kms.answer["Decrypt"] = fields(plaintext=b"short")
    with kms.serving(path):
        async with site(path) as it:
            it.sealer.at_hand(sealed)
            await it.sealer.settled(SECONDS)
            assert "decrypted to something that was never encrypted here" in it.why(sealed)


async def test_something_else_on_the_socket_is_no_plugin(path: Path) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(hang_up, path)
    async with server, site(path) as it:
        assert it.plugin.why == "does not answer"


def test_the_messages_are_those_of_kubernetes() -> None:
    """Bytes as k8s.io/kms/apis/v2 has the fields, written out."""
    sent = kmsv2.encode("DecryptRequest", Fields(ciphertext=b"c", uid="u"))
    assert sent == b"\x0a\x01c\x12\x01u"
    noted = kmsv2.encode("DecryptRequest", Fields(key_id="k", annotations={"a.b": b"1"}))
    assert noted == b"\x1a\x01k\x22\x08\x0a\x03a.b\x12\x011"
    assert kmsv2.encode("EncryptRequest", Fields(plaintext=b"p", uid="u")) == b"\x0a\x01p\x12\x01u"
    status = kmsv2.decode("StatusResponse", b"\x0a\x02v2\x12\x02ok\x1a\x01k")
    assert (status.version, status.healthz, status.key_id) == ("v2", "ok", "k")
    answer = kmsv2.decode("EncryptResponse", b"\x0a\x01c\x12\x01k\x1a\x08\x0a\x03a.b\x12\x011")
    assert kmsv2.wrapped(answer) == sealing.Wrapped(sealing.KMS, "k", b"c", (("a.b", b"1"),))
    with pytest.raises(PluginRefused, match="does not speak KMS v2"):
        kmsv2.decode("StatusResponse", b"\xff")


async def test_kubernetes_own_server_of_the_api_understands_and_is_understood(tmp_path: Path) -> None:
    try:
        program = golang.build(kubemembers.SOURCE, "./kmsplugin")
    except golang.GoMissing as missing:
        pytest.skip(str(missing))
    path = tmp_path / "kms.sock"
    process = await asyncio.create_subprocess_exec(program, path, stdin=asyncio.subprocess.PIPE)
    try:
        async with site(path) as it:
            await it.until(lambda: it.plugin.seed)
            sealed = it.sealer.seal(b"secret", CONTEXT)
            assert it.plugin.keys == ("kms:go-1",)
        async with site(path) as it:
            it.sealer.at_hand(sealed)
            await it.until(lambda: it.opens(sealed))
            assert sealing.parse(sealed).wrapped.annotations == ((NOTE, b"\x00\xff"),)
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()
