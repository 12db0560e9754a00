"""Sealed secrets: what is sealed opens with its key and in its place, and nowhere else."""

import base64
import secrets

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from onepass.pki import sealing, sealkeys
from onepass.pki.sealing import Damaged, KeyMissing, SealError, Seed, Wrapped
from onepass.pki.sealkeys import Keyring, NoKey
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealsources import Keys

# The same in every run, as tests are named by them.
ONE, TWO = (sealkeys.PREFIX + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
CONTEXT = b"/secret/clusters/prod/uid"
ODD = Wrapped(sealing.KMS, "projects/x/keys/é", b"c" * 700, (("a.example", b""), ("b.example", b"\0" * 5000)))


def ring(*lines: str) -> Sealer:
    return Sealer([Keys("test", lambda: "\n".join(lines))])


def first_version(line: str, secret: bytes, context: bytes) -> bytes:
    """As releases before envelope encryption sealed: version, id of the key, nonce, ciphertext."""
    header, nonce = b"\x01" + bytes.fromhex(sealkeys.name(line)), secrets.token_bytes(12)
    key = base64.b64decode(line.removeprefix(sealkeys.PREFIX))
    return header + nonce + AESGCM(key).encrypt(nonce, secret, header + context)


@given(secret=st.binary(), context=st.binary())
def test_what_is_sealed_can_be_unsealed_in_its_context(secret: bytes, context: bytes) -> None:
    assert ring(ONE).unseal(ring(ONE).seal(secret, context), context) == secret
    seed = Seed(sealing.new_seed(), ODD)
    sealed = sealing.parse(sealing.seal(seed, secret, context))
    assert sealed.wrapped == ODD
    assert sealing.unseal(sealed, seed.secret, context) == secret


def test_what_an_older_release_sealed_opens_and_is_to_be_sealed_anew() -> None:
    sealer = ring(TWO, ONE)
    old = first_version(ONE, b"secret", CONTEXT)
    assert sealer.unseal(old, CONTEXT) == b"secret"
    assert (sealer.key(old), sealer.fresh(old)) == (sealkeys.name(ONE), False)
    assert not ring(ONE).fresh(old), "the key is the same, and still it is no envelope"
    with pytest.raises(Damaged):
        sealer.unseal(old, CONTEXT + b"x")


@given(secret=st.binary(min_size=8))
def test_sealed_bytes_show_nothing_of_the_secret_and_differ_each_time(secret: bytes) -> None:
    sealer = ring(ONE)
    one, two = sealer.seal(secret, CONTEXT), sealer.seal(secret, CONTEXT)
    assert secret not in one
    assert sealing.parse(one).wrapped == sealing.parse(two).wrapped, "one seed for all"
    assert sealing.parse(one).info != sealing.parse(two).info, "what a record's key comes from is never used again"
    assert sealing.parse(one).text != sealing.parse(two).text


@given(secret=st.binary(), context=st.binary(), other=st.binary())
def test_what_is_sealed_for_one_object_is_none_of_another(secret: bytes, context: bytes, other: bytes) -> None:
    sealed = ring(ONE).seal(secret, context)
    if context != other:
        with pytest.raises(Damaged, match="altered, or belong to something else"):
            ring(ONE).unseal(sealed, other)


@given(st.data())
def test_any_altered_bit_is_noticed(data: st.DataObject) -> None:
    seal = data.draw(st.sampled_from([ring(ONE, TWO).seal, lambda *what: first_version(ONE, *what)]))
    sealed = bytearray(seal(data.draw(st.binary(max_size=40)), CONTEXT))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError):
        ring(ONE, TWO).unseal(bytes(sealed), CONTEXT)


@given(st.data())
def test_any_missing_or_added_byte_is_noticed(data: st.DataObject) -> None:
    seed = Seed(sealing.new_seed(), data.draw(st.sampled_from([ODD, Keyring.parse(ONE).seed().wrapped])))
    sealed = sealing.seal(seed, b"secret", CONTEXT)
    cut = data.draw(st.integers(0, len(sealed) - 1))
    for wrong in (sealed[:cut], sealed + data.draw(st.binary(min_size=1, max_size=3))):
        with pytest.raises(Damaged):
            sealing.unseal(sealing.parse(wrong), seed.secret, CONTEXT)


@given(st.binary(max_size=200))
def test_anything_else_is_damaged_and_no_crash(junk: bytes) -> None:
    for sealed in (junk, b"\x01" + junk, b"\x02" + junk, b"\x02\x01" + junk):
        with pytest.raises(SealError):
            ring(ONE).unseal(sealed, CONTEXT)


def test_a_seed_cannot_be_swapped_for_another() -> None:
    keys = Keyring.parse(ONE)
    one, two = keys.seed(), keys.seed()
    sealed = sealing.seal(one, b"secret", CONTEXT)
    swapped = sealed.replace(one.wrapped.ciphertext, two.wrapped.ciphertext)
    assert swapped != sealed
    with pytest.raises(Damaged):
        ring(ONE).unseal(swapped, CONTEXT)


def test_another_key_is_told_by_its_id_and_not_by_itself() -> None:
    sealed = ring(ONE).seal(b"secret", CONTEXT)
    with pytest.raises(KeyMissing) as caught:
        ring(TWO).unseal(sealed, CONTEXT)
    assert f"sealed with the key {sealkeys.name(ONE)}, which is not at hand" in str(caught.value)


def test_a_renewed_key_seals_and_the_old_one_still_unseals() -> None:
    old = ring(ONE).seal(b"secret", CONTEXT)
    renewed = ring(TWO, ONE)
    assert renewed.unseal(old, CONTEXT) == b"secret"
    assert not renewed.fresh(old)
    new = renewed.seal(b"secret", CONTEXT)
    assert renewed.fresh(new)
    assert ring(TWO).fresh(new), "another start has another seed, and that is no reason to seal anew"
    assert ring(TWO).unseal(new, CONTEXT) == b"secret"
    with pytest.raises(KeyMissing):
        ring(ONE).unseal(new, CONTEXT)


def test_keys_differ_and_have_256_bits() -> None:
    one, two = sealkeys.generate(), sealkeys.generate()
    assert one != two
    assert len(one) == len("onepass-seal-1:") + 44


@pytest.mark.parametrize(
    "text", [ONE, f"{ONE}\n", f"\n  {ONE}  \r\n\n{TWO}\n", f"# {sealkeys.name(ONE)}, of Monday\n{ONE}\n  # old\n{TWO}"]
)
def test_a_key_file_may_have_blank_lines_spaces_and_remarks(text: str) -> None:
    assert Keyring.parse(text).ids[0] == sealkeys.name(ONE)
    assert ring(ONE).unseal(ring(text).seal(b"s", b""), b"") == b"s"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it holds no key"),
        ("\n \n# nothing\n", "it holds no key"),
        (ONE.removeprefix("onepass-seal-1:"), "line 1 is no key"),
        ("onepass-seal-1:", "line 1 is no key"),
        (ONE[:-4], "line 1 is no key"),
        (ONE + "AAAA", "line 1 is no key"),
        (ONE.replace("-1:", "-2:"), "line 1 is no key"),
        (f"{ONE}\n{TWO[:-1]}é", "line 2 is no key"),
        ("\x00" * 40, "line 1 is no key"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(text: str, sentence: str) -> None:
    with pytest.raises(NoKey) as caught:
        Keyring.parse(text)
    assert str(caught.value).startswith(sentence)
    assert ONE[20:40] not in str(caught.value)
    assert TWO[20:40] not in str(caught.value)


def test_no_key_and_no_seed_is_in_a_repr() -> None:
    keys = Keyring.parse(ONE)
    seed = keys.seed()
    source = Keys("env:X", lambda: ONE)
    for shown in map(repr, (keys, seed, source, Sealer([source]))):
        assert ONE[15:40] not in shown
        assert repr(seed.secret)[2:-1] not in shown
        assert seed.secret.hex() not in shown


# Sealed once and written down: what is in databases must open for ever.
_BY_KEY = (
    "0201001065363038343166643230353561613337003cc8399537f18679eca08112b29a64e327e8fba9029df9b0aa8c0c"
    "71e13006c08ea6b1fb9e0c5a6b11367dce7ef26e60e2821554bc990e5d6105c4509300003db494c1d4967dc7c9b5709b"
    "7c248e66014772cf3cbf2074b7ae311ee1f151ec0f9d03d5181f7664b178bc234a6309c4293ada95cc0c"
)
_BY_KMS = (
    "020200056b65792d3100077772617070656400010009612e6578616d706c65000101ae3b896418eab32a3a2693939b6b"
    "4402cddfadc20e120707742d82a478b1d62f56666fdd051a3ba1d2239649aee4de5dd7da81d9e30b"
)


def test_what_was_sealed_long_ago_still_opens() -> None:
    line = sealkeys.PREFIX + base64.b64encode(b"k" * 32).decode()
    assert ring(line).unseal(bytes.fromhex(_BY_KEY), b"context") == b"secret"
    envelope = sealing.parse(bytes.fromhex(_BY_KMS))
    assert envelope.wrapped == Wrapped(sealing.KMS, "key-1", b"wrapped", (("a.example", b"\x01"),))
    assert sealing.unseal(envelope, bytes(range(32)), b"context") == b"secret"
