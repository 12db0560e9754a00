"""`onepass seal`: what it makes of metrics, and what it does to key files."""

from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from onepass.cli import main, sealgroup
from onepass.cli.failure import Failure
from onepass.pki import sealkeys
from onepass.registry.sealed import Census
from onepass.runtime.kmsplugin import Plugin
from onepass.runtime.sealmetrics import SealMetrics
from onepass.runtime.sealsources import Keys

OLD, NEW = sealkeys.generate(), sealkeys.generate()
OLD_ID, NEW_ID = map(sealkeys.name, (OLD, NEW))


def told(census: Census, *sources: Keys | Plugin) -> str:
    registry = CollectorRegistry()
    registry.register(SealMetrics(sources, lambda: census))
    return generate_latest(registry).decode()


def test_each_key_is_shown_with_what_it_still_does() -> None:
    odd = 'kms:a"b\\c'
    census = Census(Counter({NEW_ID: 7, odd: 2, "": 1, "gone": 0}), waiting=3)
    sources = (Keys("file:/k", lambda: f"{NEW}\n{OLD}"), Plugin("unix:///run/kms.sock", "/run/kms.sock", 3.0))
    rows, waiting, sick = sealgroup._read(told(census, *sources))
    assert [tuple(row.values()) for row in rows] == [
        (NEW_ID, "file:/k", "seals", 7),
        (OLD_ID, "file:/k", "not needed", 0),
        (odd, "", "missing", 2),
        ("(damaged)", "", "damaged", 1),
    ]
    assert (waiting, sick) == (3, ["unix:///run/kms.sock"])


def rotate(path: Path) -> str:
    done = CliRunner().invoke(main.app, ["seal", "rotate", "--file", str(path)], catch_exceptions=False)
    return done.output


def test_a_new_key_goes_before_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    path.write_text(f"{OLD}\n")
    rotate(path)
    ids = sealkeys.Keyring.parse(path.read_text()).ids
    assert ids[1:] == (OLD_ID,)
    rotate(path)
    assert sealkeys.Keyring.parse(path.read_text()).ids[1:] == ids
    assert path.stat().st_mode & 0o777 == 0o600
    lines = path.read_text().splitlines()
    assert [each.split(",")[0] for each in lines if each.startswith("#")] == [
        f"# {name}" for name in sealkeys.Keyring.parse(path.read_text()).ids
    ], "each key has its name above it"
    assert OLD[20:] not in rotate(path)


def test_a_lost_key_file_is_made_anew_when_somebody_says_so(tmp_path: Path) -> None:
    assert "seals from now on" in rotate(tmp_path / "seal.key")
    assert len(sealkeys.Keyring.parse((tmp_path / "seal.key").read_text()).ids) == 1


@pytest.mark.parametrize("content", [b"no key\n", b"\xff\xfe", f"{OLD}x\n".encode()], ids=["words", "bytes", "longer"])
def test_a_file_that_is_no_key_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "seal.key"
    path.write_bytes(content)
    with pytest.raises(Failure) as caught:
        rotate(path)
    assert caught.value.hint == "mend the file first: nothing was written"
    assert path.read_bytes() == content
    with pytest.raises(Failure):
        rotate(tmp_path / "no" / "folder" / "seal.key")
