"""A fleet of which some members hang and some come and go: each is told of, and none is in the way of another."""

import base64
import json
import time
from collections import Counter
from pathlib import Path

from tests.e2e.conftest import Gateway, running
from tests.programs import fleet

from onepass.controllers import probe

MUTE, FLAPPING, ALL = 20, 10, 120


def apply(gateway: Gateway, members: fleet.Running) -> None:
    def cluster(number: int) -> dict[str, object]:
        access = {
            "endpoint": members.endpoint(number),
            "caBundle": base64.b64encode(members.ca.encode()).decode(),
            "serverName": fleet.SERVER_NAME,
            "credential": {"type": "ServiceAccountToken", "serviceAccountToken": f"token-{number}"},
        }
        metadata = {"name": f"member-{number:03}"}
        kind = {"apiVersion": "cluster.karpor.io/v1beta1", "kind": "Cluster"}
        return {**kind, "metadata": metadata, "spec": {"access": access}}

    every = {"apiVersion": "v1", "kind": "List", "items": [cluster(number) for number in range(ALL)]}
    gateway.kubectl("create", "-f", "-", context="onepass", input=json.dumps(every))


def told(gateway: Gateway) -> Counter[str]:
    """The reasons of Ready, and of how many clusters; "" where nothing is told yet."""
    listed = json.loads(gateway.kubectl("get", "clusters", "-o", "json", context="onepass").stdout)["items"]
    found = Counter[str]()
    for each in listed:
        ready = [one["reason"] for one in each.get("status", {}).get("conditions", ()) if one["type"] == "Ready"]
        found[ready[0] if ready else ""] += 1
    return found


def test_every_member_of_a_fleet_is_told_of_and_few_are_looked_at_at_once(tmp_path: Path) -> None:
    modes = (MUTE, "mute"), (FLAPPING, "flapping")
    with fleet.running(*modes) as members, running(tmp_path / "gw") as gateway:
        apply(gateway, members)
        # Those that come and go answered well the first time; one bad look later on is not told.
        end = time.monotonic() + 180
        while (found := told(gateway)) != {"Ready": ALL - MUTE, "Timeout": MUTE}:
            assert time.monotonic() < end, found
            time.sleep(1)
        counts = members.counts()
        assert counts.looked_at == ALL
        assert counts.well_asked == ALL - MUTE - FLAPPING
        assert 0 < counts.most_hanging <= MUTE
        assert counts.most <= probe.CONCURRENCY
