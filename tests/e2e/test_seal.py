"""Keys that credentials are sealed with: renewed, moved to a KMS plugin, lost, and given back."""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.attack import echo
from tests.attack.echo import Echo
from tests.e2e import ways
from tests.e2e.conftest import Gateway, running
from tests.programs.kmsplugin import Kms
from tests.waiting import eventually

from onepass.pki import sealkeys
from onepass.storage import sqlite
from onepass.storage.interface import Op

pytestmark = pytest.mark.e2e

SECONDS = 60.0
TOKEN = "canary-token-5c1d"
PODS = "/apis/cluster.karpor.io/v1beta1/clusters/{}/proxy/api/v1/pods"


@pytest.fixture(scope="module")
def member() -> Iterator[Echo]:
    with echo.running("sealed") as started:
        yield started


def register(gateway: Gateway, member: Echo, name: str, token: str = TOKEN) -> None:
    gateway.register(name, endpoint=member.endpoint, ca=member.ca, token=token)


def condition(gateway: Gateway, name: str) -> tuple[str, str, str]:
    found = json.loads(gateway.kubectl("get", "cluster", name, "-o", "json", context="onepass").stdout)
    for each in found.get("status", {}).get("conditions", []):
        if each["type"] == "CredentialValid":
            return each["status"], each["reason"], each["message"]
    return "", "", ""


def answer(gateway: Gateway, name: str) -> httpx2.Response:
    """Of a member, to the administrator; asked once, where kubectl would ask again and again after a 503."""
    context = ways.through(gateway.data_dir / "home", gateway.kubeconfig, gateway.url, name, "x509").tls()
    with httpx2.Client(verify=context, trust_env=False, timeout=SECONDS) as client:
        return client.get(gateway.url + PODS.format(name))


def carried(gateway: Gateway, name: str) -> bool:
    return answer(gateway, name).status_code == 200


def keys(gateway: Gateway) -> dict[str, tuple[str, int]]:
    listed = json.loads(gateway.onepass("seal", "status", "-o", "json").stdout)["items"]
    return {each["key"]: (each["now"], each["credentials"]) for each in listed}


def test_a_key_is_renewed_then_moved_to_a_plugin_and_the_old_one_is_not_needed(tmp_path: Path, member: Echo) -> None:
    data, kms, socket = tmp_path / "gw", Kms(), tmp_path / "kms.sock"
    key, plugin = data / "pki" / "seal.key", f"unix://{socket}"
    with running(data) as gateway:
        register(gateway, member, "c1")
        first = sealkeys.name(key.read_text())
        assert "seals from now on" in gateway.onepass("seal", "rotate", "--data-dir", str(data)).stdout
        second = sealkeys.name(key.read_text().splitlines()[1])
        eventually(lambda: keys(gateway) == {second: ("seals", 1), first: ("not needed", 0)})
        assert carried(gateway, "c1")
        shown = gateway.onepass("seal", "status").stdout
        assert re.search(rf"{first} +file:.*seal\.key +not needed +0", shown)
        key.write_text(key.read_text().split("\n# " + first)[0] + "\n")
        eventually(lambda: keys(gateway) == {second: ("seals", 1)})
        assert carried(gateway, "c1")
    with kms.serving(socket), running(data, "--seal-key", plugin) as gateway:
        eventually(lambda: keys(gateway) == {"kms:key-1": ("seals", 1), second: ("not needed", 0)})
    key.unlink()
    with kms.serving(socket), running(data, "--seal-key", plugin) as gateway:
        eventually(lambda: keys(gateway) == {"kms:key-1": ("seals", 1)})
        eventually(lambda: carried(gateway, "c1"))
        assert not key.exists()


def test_a_lost_key_closes_what_it_sealed_and_harms_nothing_else(tmp_path: Path, member: Echo) -> None:
    data = tmp_path / "gw"
    key, put_away = data / "pki" / "seal.key", tmp_path / "put-away"
    with running(data) as gateway:
        register(gateway, member, "c1")
        register(gateway, member, "c2")
        gateway.register("open", endpoint=member.endpoint, ca=member.ca)
    key.rename(put_away)
    with running(data) as gateway:
        eventually(lambda: condition(gateway, "c1")[1] == "KeyMissing")
        told = condition(gateway, "c1")[2]
        assert f"it is sealed with the key {sealkeys.name(put_away.read_text())}, which is not at hand" in told
        remedy = "give the gateway a new credential: onepass cluster rotate c1 --kubeconfig FILE"
        assert told.endswith(f"; give the key back with --seal-key, or {remedy}")
        eventually(lambda: carried(gateway, "open"))
        refused = answer(gateway, "c1")
        assert refused.status_code == 503
        assert "If it stays so, its conditions say why" in refused.json()["message"]
        eventually(lambda: any("a seal key cannot be read" in line for line in gateway.output))
        assert "missing" in gateway.onepass("seal", "status").stdout
        assert not key.exists(), "nothing takes the place of what may come back"
        again = cluster(member, "c2")
        unsealed = gateway.kubectl("apply", "-f", "-", input=again, context="onepass", check=False)
        assert "there is no key to seal it with" in unsealed.stderr
        put_away.rename(key)
        eventually(lambda: carried(gateway, "c1") and carried(gateway, "c2"))
        eventually(lambda: condition(gateway, "c1")[0] == "True")
    key.rename(put_away)
    key.write_text(sealkeys.generate())
    with running(data) as gateway:
        eventually(lambda: condition(gateway, "c2")[1] == "KeyMissing")
        # The same credential once more, and the cluster is well.
        gateway.kubectl("apply", "-f", "-", input=cluster(member, "c2"), context="onepass")
        eventually(lambda: carried(gateway, "c2"))
        eventually(lambda: condition(gateway, "c1")[1] == "KeyMissing")
    with running(data, "--seal-key", f"file:{key}", "--seal-key", f"file:{put_away}") as gateway:
        eventually(lambda: carried(gateway, "c1") and carried(gateway, "c2"))
        eventually(lambda: keys(gateway)[sealkeys.name(key.read_text())] == ("seals", 2))


def cluster(member: Echo, name: str) -> str:
    credential = {"type": "ServiceAccountToken", "serviceAccountToken": TOKEN}
    access = {
        "endpoint": member.endpoint,
        "caBundle": base64.b64encode(member.ca).decode(),
        "credential": credential,
    }
    about = {"apiVersion": "cluster.karpor.io/v1beta1", "kind": "Cluster", "metadata": {"name": name}}
    return json.dumps(about | {"spec": {"access": access}})


def test_a_plugin_away_at_the_start_and_in_the_middle_heals_by_itself(tmp_path: Path, member: Echo) -> None:
    data, kms, socket = tmp_path / "gw", Kms(), tmp_path / "kms.sock"
    plugin = f"unix://{socket}"
    with running(data, "--seal-key", plugin) as gateway:
        refused = gateway.kubectl("apply", "-f", "-", input=cluster(member, "c1"), context="onepass", check=False)
        assert "no key to seal it with: unix://" in refused.stderr
        assert not (data / "pki" / "seal.key").exists(), "no weaker key takes the plugin's place"
        with kms.serving(socket):
            eventually(lambda: keys(gateway))
            register(gateway, member, "c1")
        register(gateway, member, "c2")
        assert carried(gateway, "c1")
    with running(data, "--seal-key", plugin) as gateway:
        eventually(lambda: condition(gateway, "c1")[1] == "KeyUnavailable")
        assert "does not answer" in condition(gateway, "c1")[2]
        with kms.serving(socket):
            eventually(lambda: carried(gateway, "c1") and carried(gateway, "c2"))
            eventually(lambda: condition(gateway, "c1")[0] == "True")


def test_no_key_no_seed_and_no_credential_is_anywhere_to_be_read(tmp_path: Path, member: Echo) -> None:
    data, kms, socket = tmp_path / "gw", Kms(), tmp_path / "kms.sock"
    key, file = sealkeys.generate(), tmp_path / "file.key"
    file.write_text(sealkeys.generate())
    keyed = ("--seal-key", "env:ONEPASS_SEAL_KEY", "--seal-key", f"file:{file}", "--seal-key", f"unix://{socket}")
    with kms.serving(socket), running(data, *keyed, env={"ONEPASS_SEAL_KEY": key}) as gateway:
        register(gateway, member, "c1")
        processes = [gateway.process.pid, *descendants(gateway.process.pid)]
        assert len(processes) > 1, "Envoy is one of them"
        for process in processes:
            for part in ("environ", "cmdline"):
                content = Path(f"/proc/{process}/{part}").read_bytes()
                assert key.encode() not in content
                assert key[15:].encode() not in content
        told = [gateway.kubectl("get", "--raw", path, context="onepass").stdout for path in ("/metrics", "/readyz")]
        told += [gateway.onepass("seal", "status").stdout, *gateway.output]
        told.append(gateway.kubectl("get", "clusters", "-o", "yaml", "--show-managed-fields", context="onepass").stdout)
    places = [path.read_bytes() for path in data.rglob("*") if path.is_file()]
    assert len(places) > 8
    secrets = [TOKEN.encode(), key[15:50].encode(), file.read_bytes()[15:50], base64.b64decode(key[15:])]
    for secret in (*secrets, *kms.seen):
        for content in (*places, *map(str.encode, told)):
            assert secret not in content
            assert base64.b64encode(secret).rstrip(b"=") not in content
    assert any(b"/secret/registry/cluster.karpor.io/clusters/c1" in each for each in places), (
        "the database is among them"
    )


def test_who_writes_the_database_leads_no_credential_elsewhere(tmp_path: Path, member: Echo) -> None:
    """One cluster is led to a thief, another gets the record of a third, a third one loses a bit."""
    data = tmp_path / "gw"
    with echo.running("thief") as thief:
        with running(data) as gateway:
            for name in ("led", "given", "bitten", "well"):
                register(gateway, member, name)
        asyncio.run(altered(data / "onepass.db", thief))
        with running(data) as gateway:
            for name in ("led", "given", "bitten"):
                eventually(lambda: condition(gateway, name)[1] == "CredentialDamaged")  # noqa: B023
                assert f"onepass cluster rotate {name} --kubeconfig FILE" in condition(gateway, name)[2]
                assert not carried(gateway, name)
            eventually(lambda: carried(gateway, "well"))
            gateway.kubectl("apply", "-f", "-", input=cluster(member, "given"), context="onepass")
            eventually(lambda: carried(gateway, "given"))
        assert TOKEN.encode() not in thief.everything()
        assert not thief.requests()


async def altered(database: Path, thief: Echo) -> None:
    objects, secrets = b"/registry/cluster.karpor.io/clusters/", b"/secret/registry/cluster.karpor.io/clusters/"
    storage = await sqlite.open_sqlite(database)
    found = {each.key: each.value for each in (await storage.range(b"/")).records}
    led = json.loads(found[objects + b"led"])
    led["spec"]["access"] |= {"endpoint": thief.endpoint, "caBundle": base64.b64encode(thief.ca).decode()}
    bitten = bytearray(found[secrets + b"bitten"])
    bitten[-20] ^= 1
    await storage.commit(
        [
            Op(objects + b"led", json.dumps(led).encode()),
            Op(secrets + b"given", found[secrets + b"well"]),
            Op(secrets + b"bitten", bytes(bitten)),
        ]
    )
    await storage.close()


def descendants(parent: int) -> list[int]:
    children = [int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    for thread in Path(f"/proc/{parent}/task").iterdir():
        children += [int(each) for each in (thread / "children").read_text().split()]
    found = sorted(set(children))
    return [*found, *(each for child in found for each in descendants(child))]
