"""Sealed secrets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepass.pki import sealing
from onepass.pki.sealing import Keyring, SealError
from onepass.registry.store import Sealer

ONE, TWO = sealing.generate(), sealing.generate()
CONTEXT = b"/secret/clusters/prod/uid"


def ring(*lines: str) -> Sealer:
    return Keyring.parse("\n".join(lines))


@given(secret=st.binary(), context=st.binary())
def test_what_is_sealed_can_be_unsealed_in_its_context(secret: bytes, context: bytes) -> None:
    assert ring(ONE).unseal(ring(ONE).seal(secret, context), context) == secret


@given(secret=st.binary(min_size=8))
def test_sealed_bytes_show_nothing_of_the_secret_and_differ_each_time(secret: bytes) -> None:
    one, two = ring(ONE).seal(secret, CONTEXT), ring(ONE).seal(secret, CONTEXT)
    assert secret not in one
    assert one != two
    assert one[9:21] != two[9:21], "a nonce is never used again"


@given(secret=st.binary(), context=st.binary(), other=st.binary())
def test_what_is_sealed_for_one_object_is_none_of_another(secret: bytes, context: bytes, other: bytes) -> None:
    sealed = ring(ONE).seal(secret, context)
    if context != other:
        with pytest.raises(SealError, match="altered, or belong to something else"):
            ring(ONE).unseal(sealed, other)


@given(st.data())
def test_any_altered_bit_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(ring(ONE, TWO).seal(data.draw(st.binary(max_size=40)), CONTEXT))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError):
        ring(ONE, TWO).unseal(bytes(sealed), CONTEXT)


@given(st.data())
def test_any_missing_or_added_byte_is_noticed(data: st.DataObject) -> None:
    sealed = ring(ONE).seal(b"secret", CONTEXT)
    cut = data.draw(st.integers(0, len(sealed) - 1))
    for wrong in (sealed[:cut], sealed + data.draw(st.binary(min_size=1, max_size=3))):
        with pytest.raises(SealError):
            ring(ONE).unseal(wrong, CONTEXT)


def test_another_key_is_told_by_its_id_and_not_by_itself() -> None:
    sealed = ring(ONE).seal(b"secret", CONTEXT)
    with pytest.raises(SealError, match=f"sealed with the key {sealed[1:9].hex()}, which is not at hand"):
        ring(TWO).unseal(sealed, CONTEXT)


def test_a_renewed_key_seals_and_the_old_one_still_unseals() -> None:
    old = ring(ONE).seal(b"secret", CONTEXT)
    renewed = ring(TWO, ONE)
    assert renewed.unseal(old, CONTEXT) == b"secret"
    new = renewed.seal(b"secret", CONTEXT)
    assert ring(TWO).unseal(new, CONTEXT) == b"secret"
    with pytest.raises(SealError):
        ring(ONE).unseal(new, CONTEXT)


def test_keys_differ_and_have_256_bits() -> None:
    assert ONE != TWO
    assert len(ONE) == len("onepass-seal-1:") + 44


@pytest.mark.parametrize("text", [ONE, f"{ONE}\n", f"\n  {ONE}  \r\n\n{TWO}\n"])
def test_a_key_file_may_have_blank_lines_and_spaces(text: str) -> None:
    assert ring(ONE).unseal(Keyring.parse(text).seal(b"s", b""), b"") == b"s"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the seal key is empty"),
        ("\n \n", "the seal key is empty"),
        (ONE.removeprefix("onepass-seal-1:"), "line 1 of the seal key is not a key"),
        ("onepass-seal-1:", "line 1 of the seal key is not a key"),
        (ONE[:-4], "line 1 of the seal key is not a key"),
        (ONE + "AAAA", "line 1 of the seal key is not a key"),
        (ONE.replace("-1:", "-2:"), "line 1 of the seal key is not a key"),
        (f"{ONE}\n{TWO[:-1]}é", "line 2 of the seal key is not a key"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(text: str, sentence: str) -> None:
    with pytest.raises(SealError) as caught:
        Keyring.parse(text)
    assert str(caught.value).startswith(sentence)
    assert ONE[20:40] not in str(caught.value)
    assert TWO[20:40] not in str(caught.value)
