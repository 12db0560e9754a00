"""The policy as Lua: any name is data, and any size loads."""

from tests.unit import luagate
from tests.unit.gatepolicy import EVERYTHING, NOW, READING, refusal
from tests.unit.luagate import Certificate, Gate

from onepass.access.policy import Grant, Policy, Subjects, Target


def test_any_name_is_data_in_the_tables() -> None:
    names = ['"', "\\", "]]", "a\nb", "--", "%s", "é", "\x00", "end policy = nil --", "\udcff", "\\065"]
    grants = tuple(Grant(name, (EVERYTHING,), frozenset({name, "prod"}), "Gateway") for name in names)
    policy = Policy(
        grants=grants,
        granted=Subjects(users={name: (index,) for index, name in enumerate(names)}),
        targets={name: Target(name, "x", "", "Gateway") for name in names},
        accounts=dict.fromkeys(names, "u"),
    )
    gate = Gate(policy, NOW)
    users = gate.globals.policy.granted.users
    for index, name in enumerate(names):
        assert list(users[luagate.raw(name)].values()) == [index + 1]
        assert gate.globals.policy.targets[luagate.raw(name)].cluster == luagate.raw(f"member/{name}")


def test_ten_thousand_subjects_and_five_thousand_clusters_load() -> None:
    clusters = [f"c{number}" for number in range(5000)]
    grants = tuple(
        Grant(f"p{number}", (READING,), frozenset({clusters[number % 5000]}), "Gateway") for number in range(10_000)
    )
    many = frozenset(clusters)
    policy = Policy(
        grants=(*grants, Grant("all", (READING,), many, "Gateway")),
        granted=Subjects(
            users={f"u{number}": (number,) for number in range(10_000)},
            groups={"all": tuple(range(10_001)), "one": (10_000,)},
        ),
        targets={name: Target(name, name, "", "Gateway") for name in clusters},
    )
    gate = Gate(policy, NOW)
    path = "/apis/cluster.karpor.io/v1beta1/clusters/c4999/proxy/api/v1/pods"
    assert gate.request("GET", path, certificate=Certificate("u9999")).one("x-onepass-member") == "member/c4999"
    assert gate.request("GET", path, certificate=Certificate("x", ("one",))).metadata["request"]["pass"] == "all"
    assert gate.request("GET", path, certificate=Certificate("x", ("all",))).metadata["request"]["pass"] == "p4999"
    assert refusal(gate.request("GET", path, certificate=Certificate("u9998")))[0] == 403
