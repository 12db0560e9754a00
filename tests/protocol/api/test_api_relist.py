"""The own API's history is forgotten: the official Python client is told 410, lists anew and watches on."""

import asyncio
import json
from pathlib import Path

from tests.programs import relisting
from tests.programs.relisting import WANTED
from tests.protocol.api.conftest import DEADLINE, Api


async def test_a_watch_that_lost_its_place_goes_on(api: Api, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    named = {"name": "it", "cluster": {"server": f"http://127.0.0.1:{api.port}"}}
    context = {"name": "it", "context": {"cluster": "it", "user": "it"}}
    config = {"clusters": [named], "users": [{"name": "it", "user": {}}], "contexts": [context]}
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "it", **config}))
    loop = asyncio.get_running_loop()

    async def forget() -> None:
        await api.storage.compact(await api.storage.revision())

    def forgotten() -> None:
        asyncio.run_coroutine_threadsafe(forget(), loop).result(DEADLINE)

    told = await asyncio.to_thread(relisting.run, kubeconfig, "default", forgotten)
    assert told.event[:5] == [200, "ERROR", "Status", 410, "Expired"]
    assert told.refused[0] == 410
    assert told.seen == WANTED
