"""Generations of the gateway's own authorities, and those that an operator adds."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from onepass.pki import authority, certificates
from onepass.pki.authority import Authority
from onepass.runtime import authorities
from onepass.runtime.authorities import CLIENT, SERVING
from onepass.runtime.settings import Settings, SettingsError

NOW = 1_700_000_000.0
DAY = 86400.0


def numbers(folder: Path, name: str, now: float) -> list[int]:
    authorities.prepare(folder, name, now)
    return [each.number for each in authorities.generations(folder, name, now)]


def test_the_one_before_is_trusted_until_what_it_issued_has_ended(tmp_path: Path) -> None:
    assert numbers(tmp_path, CLIENT, NOW) == [1]
    assert numbers(tmp_path, CLIENT, NOW + DAY) == [1]
    authorities.rotate(tmp_path, CLIENT, NOW + 10 * DAY)
    assert numbers(tmp_path, CLIENT, NOW + 10 * DAY) == [1, 2]
    assert numbers(tmp_path, CLIENT, NOW + 375 * DAY) == [1, 2]  # issued on day 10, for a year
    assert numbers(tmp_path, CLIENT, NOW + 410 * DAY) == [2]
    names = [each.authority.certificate.subject for each in authorities.stored(tmp_path, CLIENT)]
    assert len(set(names)) == 2  # revocation lists are found by the name of their authority


def test_an_authority_that_ends_soon_gets_a_successor_by_itself(tmp_path: Path) -> None:
    assert numbers(tmp_path, CLIENT, NOW) == [1]
    late = NOW + 3650 * DAY - 380 * DAY
    assert numbers(tmp_path, CLIENT, late) == [1, 2]
    assert numbers(tmp_path, CLIENT, late + DAY) == [1, 2]
    assert numbers(tmp_path, CLIENT, NOW + 3651 * DAY) == [2]


def test_a_serving_authority_is_handed_out_before_it_serves(tmp_path: Path) -> None:
    authorities.prepare(tmp_path, SERVING, NOW)
    authorities.rotate(tmp_path, SERVING, NOW + DAY)

    def serving(at: float) -> int:
        return authorities.serving(authorities.generations(tmp_path, SERVING, at), at).number

    assert serving(NOW + DAY) == 1
    assert serving(NOW + 32 * DAY) == 2
    assert authorities.switch(tmp_path).number == 2
    assert serving(NOW + DAY) == 2
    assert numbers(tmp_path, SERVING, NOW + DAY) == [1, 2]


def test_nothing_is_rotated_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no gateway"):
        authorities.rotate(tmp_path, CLIENT, NOW)
    with pytest.raises(SettingsError, match="no newer"):
        authorities.switch(tmp_path)
    authorities.prepare(tmp_path, SERVING, NOW)
    with pytest.raises(SettingsError, match="no newer"):
        authorities.switch(tmp_path)


@pytest.mark.parametrize("lost", ["client-ca.key", "client-ca.crt", "client-ca-2.key"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, lost: str) -> None:
    authorities.prepare(tmp_path, CLIENT, NOW)
    authorities.rotate(tmp_path, CLIENT, NOW)
    if lost == "client-ca.crt":
        (tmp_path / "client-ca-2.crt").unlink()
    (tmp_path / lost).unlink()
    with pytest.raises(SettingsError, match=lost.removesuffix(".key").removesuffix(".crt")):
        authorities.generations(tmp_path, CLIENT, NOW)


def crl(by: Authority, *serials: int, signer: Authority | None = None) -> bytes:
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.certificate.subject)
        .last_update(moment)
        .next_update(moment + datetime.timedelta(days=365))
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign((signer or by).key, hashes.SHA256()).public_bytes(Encoding.PEM)


CORP, BRANCH, STRANGER = (authority.create(name, NOW) for name in ("Corp", "Branch", "Stranger"))
OWN = authority.create("onepass client authority", NOW)


def pem(*each: Authority) -> bytes:
    return certificates.to_pem([one.certificate for one in each])


def read(folder: Path, ca: bytes, lists: bytes | None) -> authorities.Others:
    (folder / "ca.pem").write_bytes(ca)
    if lists is not None:
        (folder / "crl.pem").write_bytes(lists)
    settings = Settings(client_ca_file=folder / "ca.pem", client_crl_file=None if lists is None else folder / "crl.pem")
    return authorities.others(settings, [OWN], NOW)


def test_what_others_took_back_is_known_by_authority(tmp_path: Path) -> None:
    corp, branch = (certificates.digest(each.certificate) for each in (CORP, BRANCH))
    found = read(tmp_path, pem(CORP, BRANCH, CORP), crl(CORP, 0x0C0FFEE, 1) + crl(STRANGER, 0xDEAD))
    assert len(found.certificates) == 2
    assert found.revoked == {corp: {"c0ffee", "1"}, branch: frozenset()}
    assert found.elsewhere == {"dead"}
    assert not found.covered
    assert read(tmp_path, pem(CORP, BRANCH), crl(CORP) + crl(BRANCH)).covered
    assert not read(tmp_path, pem(CORP), None).covered
    assert authorities.others(Settings(), [OWN], NOW).covered


@pytest.mark.parametrize(
    ("ca", "lists", "why"),
    [
        (lambda: b"", None, "is not PEM"),
        (lambda: pem(OWN), None, "name of our own"),
        (lambda: pem(authority.create("onepass client authority", NOW)), None, "name of our own"),
        (lambda: pem(authority.create("Old", NOW - 4000 * DAY)), None, "has expired"),
        (lambda: pem(CORP), b"nothing", "no BEGIN X509 CRL"),
        (lambda: pem(CORP), b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "not a revocation list"),
        (lambda: pem(CORP), crl(CORP, 1, signer=STRANGER), "not signed by it"),
    ],
)
def test_files_of_the_operator_that_cannot_be(
    tmp_path: Path, ca: Callable[[], bytes], lists: bytes | None, why: str
) -> None:
    with pytest.raises(SettingsError, match=why):
        read(tmp_path, ca(), lists)


def test_a_leaf_is_no_authority(tmp_path: Path) -> None:
    from onepass.pki import keys

    leaf = authority.issue_client(CORP, authority.Request("bob", (), keys.generate().public_key()), NOW, 3600)
    with pytest.raises(SettingsError, match="is not an authority"):
        read(tmp_path, certificates.to_pem([leaf]), None)


def test_a_list_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs --client-ca-file"):
        authorities.others(Settings(client_crl_file=tmp_path / "x"), [OWN], NOW)
