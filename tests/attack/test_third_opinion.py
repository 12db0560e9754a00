"""A third reading of request lines: kube-apiserver's own, in Go, beside the ones in Python and in Lua.

What the gateway refuses may be read in any way. What it takes must be, to a kube-apiserver, what it was judged as. It
runs for a bounded time; a finding names its seed, and ONEPASS_DIFFERENTIAL_SEED=N runs that again.
"""

import json
import random
import subprocess
import time
from collections.abc import Sequence
from typing import Any  # parsed JSON of the Go program

import pytest
from tests.attack.test_differential_bulk import FIXED, FRESH
from tests.programs import golang, gomembers
from tests.unit import generated
from tests.unit.luagate import Gate

from onepass.access import requestinfo
from onepass.access.attributes import Attributes
from onepass.access.policy import Policy

SECONDS = 10.0  # for each seed; at least one batch
BATCH = 4000
FIELDS = ("group", "version", "resource", "subresource", "namespace", "name")
SESSIONS = ("exec", "attach", "portforward")
GATE = Gate(Policy())

Line = tuple[str, str, str]


def of_python(line: Line) -> Attributes | str:
    method, path, query = line
    try:
        return requestinfo.parse(method, path, query, False)
    except requestinfo.Malformed as error:
        return str(error)


def of_go(lines: Sequence[Line]) -> list[dict[str, Any]]:
    try:
        program = golang.build(gomembers.SOURCE, "./requestinfo")
    except golang.GoMissing as missing:
        pytest.skip(str(missing))
    asked = "".join(json.dumps([method, f"{path}?{query}" if query else path]) + "\n" for method, path, query in lines)
    done = subprocess.run([str(program)], input=asked, capture_output=True, text=True, check=True, timeout=120)
    answers = [json.loads(each) for each in done.stdout.splitlines()]
    assert len(answers) == len(lines)
    return answers


def agree(line: Line, mine: Attributes, theirs: dict[str, Any]) -> bool:
    """Whether kube-apiserver sees what was judged; a session is `create` here, whatever its method (KEP-4006)."""
    if theirs["error"] or (theirs["undecodable"] and theirs["verb"] in ("list", "watch")):
        return True  # it answers 400, and nothing is done
    if theirs["path"] != mine.path or theirs["isResource"] != mine.is_resource:
        return False
    if not mine.is_resource:
        return bool(theirs["verb"] == mine.verb)
    same = all(
        theirs[name] == getattr(mine, name)
        for name in ("group", "version", "resource", "subresource", "namespace", "name")
    )
    return same and (theirs["verb"] == mine.verb or (mine.subresource in SESSIONS and mine.verb == "create"))


@pytest.mark.parametrize("seed", [FIXED, FRESH], ids=["fixed", "fresh"])
def test_what_is_judged_is_what_kube_apiserver_reads(seed: int) -> None:
    chance = random.Random(seed)
    end, taken = time.monotonic() + SECONDS, 0
    while True:
        lines = [generated.line(chance) for _ in range(BATCH)]
        for line, theirs in zip(lines, of_go(lines), strict=True):
            mine = of_python(line)
            method, path, query = line
            lua = GATE.parse(method, path, query, False)
            if isinstance(mine, str):
                assert lua == mine, f"seed {seed}: {line}"
                continue
            assert isinstance(lua, dict), f"seed {seed}: {line}: Lua refuses it: {lua}"
            fields = (
                "verb",
                "namespace",
                *(("group", "version", "resource", "subresource", "name") if mine.is_resource else ()),
            )
            assert {each: lua[each] for each in fields} == {each: getattr(mine, each) for each in fields}, (seed, line)
            assert agree(line, mine, theirs), f"seed {seed}: {line}\nPython: {mine}\nkube-apiserver: {theirs}"
            taken += 1
        if time.monotonic() > end:
            break
    assert taken > BATCH / 10
