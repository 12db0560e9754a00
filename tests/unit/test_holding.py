"""What somebody holds of what they give: rule by rule, in parts, and without end to the work."""

import math
import time
from dataclasses import replace

import pytest

from onepass.access import holding
from onepass.access.holding import Gift, Place
from onepass.access.identity import Identity
from onepass.access.policy import Grant, Policy, Rule, Subjects

NOW = 1_700_000_000.0
EVERYWHERE = frozenset({"*"})


def rule(verbs: str, groups: str = "", resources: str = "pods", names: str = "", namespaces: str = "") -> Rule:
    lists = (verbs, resources, names, namespaces)
    first, second, third, fourth = (frozenset(each.split()) for each in lists)
    return Rule(first, frozenset(groups.split() or [""]), second, third, fourth)


def paths(verbs: str, *given: str) -> Rule:
    return Rule(frozenset(verbs.split()), paths=given)


@pytest.mark.parametrize(
    ("held", "wanted", "lacking"),
    [
        ([rule("get list")], rule("get"), []),
        ([rule("get"), rule("list")], rule("get list"), []),
        ([rule("get")], rule("get list"), [rule("list")]),
        ([rule("*")], rule("get list"), []),
        ([rule("get")], rule("*"), [rule("*")]),
        ([rule("get", resources="*")], rule("get", resources="pods pods/log"), []),
        ([rule("get", resources="*/log")], rule("get", resources="pods/log pods"), [rule("get")]),
        ([rule("get", resources="pods/log")], rule("get", resources="*/log"), [rule("get", resources="*/log")]),
        ([rule("get", groups="*")], rule("get", groups="apps"), []),
        ([rule("get", groups="apps")], rule("get", groups="apps batch"), [rule("get", groups="batch")]),
        ([rule("get")], rule("get", names="a"), []),
        ([rule("get", names="a")], rule("get", names="a b"), [rule("get", names="b")]),
        ([rule("get", names="a"), rule("get", names="b")], rule("get", names="a b"), []),
        ([rule("get", names="a")], rule("get"), [rule("get")]),
        ([rule("get", namespaces="a b")], rule("get", namespaces="b"), []),
        ([rule("get", namespaces="a")], rule("get", namespaces="a b"), [rule("get", namespaces="b")]),
        ([rule("get", namespaces="a")], rule("get"), [rule("get")]),
        ([rule("get", namespaces="a")], rule("get", namespaces="*"), [rule("get", namespaces="*")]),
        ([rule("get", namespaces="*")], rule("get"), []),
        ([paths("get", "/a*")], paths("get", "/a", "/abc", "/a/*"), []),
        ([paths("get", "/a/*")], paths("get", "/a", "/a/b"), [paths("get", "/a")]),
        ([paths("*", "*")], paths("get post", "/a"), []),
        ([paths("get", "*")], rule("get"), [rule("get")]),
        ([], Rule(frozenset()), []),
    ],
)
def test_what_is_not_covered_is_told_in_parts(held: list[Rule], wanted: Rule, lacking: list[Rule]) -> None:
    assert list(holding.missing(held, [wanted])) == lacking


def test_rules_that_multiply_out_cost_little() -> None:
    many = frozenset(f"x{number}" for number in range(2000))
    held = [rule("get"), *(rule("get", resources=f"r{number}") for number in range(100))]
    wanted = [Rule(many, many, many, many, many)] * 50
    assert list(holding.missing(held, wanted)) == wanted  # whole: in parts they would be 2000 to the fifth


def test_clusters_that_multiply_out_cost_little() -> None:
    """Who holds much gives it away in parts, on every cluster of a long list: minutes, in which nobody is served."""
    numbers = range(128)
    names = frozenset(f"n{number}" for number in numbers)
    held = tuple(replace(rule("get", resources=f"r{number}"), names=names) for number in numbers)
    policy = Policy(grants=(Grant("own", held, EVERYWHERE, "Gateway"),), granted=Subjects(users={"alice": (0,)}))
    wanted = replace(rule("get"), resources=frozenset(f"r{number}" for number in numbers), names=names)
    gift = Gift((wanted,), holding.places((f"c{n}" for n in range(20_000)), None), "Gateway", 0, math.inf)
    began = time.process_time()
    first, *rest = holding.missing_of(policy, Identity("alice"), gift)
    assert time.process_time() - began < 5
    assert (first[1], rest[-1][1]) == ((wanted,), (wanted,))


def test_many_clusters_on_which_the_same_is_held_are_asked_about_once() -> None:
    own = Grant("own", (rule("get list watch", resources="pods secrets"),), EVERYWHERE, "Gateway")
    policy = Policy(grants=(own,), granted=Subjects(users={"alice": (0,)}))
    wanted = (rule("get", resources="pods"), rule("list watch", resources="secrets"))
    gift = Gift(wanted, holding.places((f"c{n}" for n in range(5_000)), None), "Gateway", 0, math.inf)
    assert not list(holding.missing_of(policy, Identity("alice"), gift))


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({}, False),
        ({"begins": NOW + 1}, False),
        ({"begins": NOW - 1}, True),
        ({"ends": NOW + 9}, False),
        ({"ends": NOW + 11}, True),
        ({"mode": "Impersonate"}, False),
        ({"rules": (rule("get", names="a"),)}, False),
        ({"rules": (rule("get watch"),)}, True),
        ({"places": (Place("a"),)}, False),
        ({"places": (Place("b"),)}, True),
        ({"places": (Place(),)}, True),
        ({"places": (Place(selector=frozenset({("env", "In", frozenset({"dev"}))})),)}, False),
        (
            {"places": (Place(selector=frozenset({("env", "In", frozenset({"dev"})), ("a", "Exists", frozenset())})),)},
            False,
        ),
        ({"places": (Place(selector=frozenset({("a", "Exists", frozenset())})),)}, True),
    ],
)
def test_a_pass_gives_more_when_anything_of_it_grows(change: dict[str, object], more: bool) -> None:
    chosen = Place(selector=frozenset({("env", "In", frozenset({"dev"}))}))
    before: dict[str, object] = {
        "rules": (rule("get list"),),
        "places": (Place("a"), chosen),
        "mode": "Gateway",
        "begins": NOW,
        "ends": NOW + 10,
    }
    old, new = Gift(**before), Gift(**(before | change))  # type: ignore[arg-type]
    assert holding.exceeds(new, old) is more
