"""What somebody holds, and what of something that they are about to give away they do not.

For roles and bindings the rule is kube-apiserver's (k8s.io/component-helpers/auth/rbac/validation): whoever gives
rights must have them. For a pass the same holds on every cluster that it opens, now or by a label later, and as long.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from onepass.access import rules
from onepass.access.identity import Identity
from onepass.access.policy import Grant, Mode, Policy, Rule, Selector

# What "*" means on a member: no other verb can come from an HTTP request.
VERBS = frozenset({"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "impersonate"})
METHODS = frozenset({"get", "head", "post", "put", "patch", "delete", "options"})

_ANY = frozenset({"*"})
EVERYTHING = (Rule(_ANY, _ANY, _ANY), Rule(_ANY, paths=("*",)))
# How many rules are held against others in one question, so that nobody keeps the gateway busy with rules and clusters
# that multiply out without end. Beyond that a rule is held whole, or not; then nothing is held any more.
_COMPARISONS = 100_000
_PLACE = 8  # of them: what it takes to find what somebody holds in one place


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pass holds: on a cluster of a name, or wherever labels meet a selector (an empty one: everywhere)."""

    name: str = ""
    selector: Selector = frozenset()

    def __str__(self) -> str:
        if self.name:
            return f'on cluster "{self.name}"'
        return "on every cluster that the selector may choose" if self.selector else "on every cluster"


@dataclass(frozen=True, slots=True)
class Gift:
    """What a pass gives: rules, where, as whom and when (Unix seconds; infinite without an end)."""

    rules: tuple[Rule, ...]
    places: tuple[Place, ...]
    mode: Mode
    begins: float
    ends: float


def places(names: Iterable[str], selector: Selector | None) -> tuple[Place, ...]:
    """The clusters that a pass names, and those that it selects."""
    found = [Place() if name == "*" else Place(name) for name in sorted(names)]
    return (*found, *(() if selector is None else (Place(selector=selector),)))


@dataclass(slots=True)
class _Room:
    """What one question may still cost."""

    left: int = _COMPARISONS

    def takes(self, cost: int) -> bool:
        if cost > self.left:
            return False
        self.left -= cost
        return True


def missing(held: Sequence[Rule], wanted: Iterable[Rule]) -> tuple[Rule, ...]:
    """The parts of `wanted` that no rule of `held` covers."""
    return _missing(held, wanted, _Room())


def _missing(held: Sequence[Rule], wanted: Iterable[Rule], room: _Room) -> tuple[Rule, ...]:
    found: list[Rule] = []
    for rule in wanted:
        if not room.takes(len(held)):
            found.append(rule)
        elif any(_covers(known, rule) for known in held):
            continue
        else:
            near = [known for known in held if _touches(known, rule)]
            if room.takes(_size(rule) * (1 + len(near))):
                found.extend(part for part in _parts(rule) if not any(_covers(known, part) for known in near))
            else:
                found.append(rule)
    return tuple(found)


def missing_of(policy: Policy, identity: Identity, gift: Gift) -> Iterator[tuple[Place, tuple[Rule, ...]]]:
    """Where somebody lacks what they give, and which rules."""
    wanted, room = [_spelt_out(rule) for rule in gift.rules], _Room()
    answered: dict[tuple[Rule, ...], tuple[Rule, ...]] = {}  # who names many clusters mostly holds the same on each
    for place in gift.places:
        lacking = tuple(wanted)
        if room.takes(_PLACE):
            held = _held(policy, identity, place, gift)
            if room.takes(len(held)):
                if held not in answered:
                    answered[held] = _missing(held, wanted, room)
                lacking = answered[held]
        if lacking:
            yield place, lacking


def exceeds(new: Gift, old: Gift) -> bool:
    """Whether a pass gives anything that it did not give before, to the same people."""
    within = all(any(_inside(place, known) for known in old.places) for place in new.places)
    timely = old.begins <= new.begins and new.ends <= old.ends
    meeker = new.mode == old.mode or new.mode == "Impersonate"
    return not (within and timely and meeker) or bool(missing(old.rules, new.rules))


def _held(policy: Policy, identity: Identity, place: Place, gift: Gift) -> tuple[Rule, ...]:
    """Rules that somebody holds in a place, as they would have to for the gift: by RBAC, or by a pass of their own."""
    found: list[Rule] = []
    for binding in rules.bindings_of(policy, identity, ""):
        for rule in binding.rules:
            if rules.concerns_proxy(rule, place.name) and (place.name or not rule.names):
                found += _carried(rule)
            if rule.verbs & {"*", "impersonate"}:
                found.append(replace(rule, verbs=frozenset({"impersonate"}), paths=()))
    for grant in rules.grants_of(policy, identity, None, gift.begins):
        lasts = math.inf if grant.not_after is None else grant.not_after
        # A pass under which the member sees the gateway gives more than one under which it sees the user.
        enough = grant.mode == "Gateway" or gift.mode == "Impersonate"
        if enough and lasts >= gift.ends and _opens(grant, place):
            found += map(_spelt_out, grant.rules)
    return (*found, *rules.FREE) if found else ()


def _carried(rule: Rule) -> Iterator[Rule]:
    """What a rule on `clusters/proxy` opens on a member. Impersonation is not in it: that has a rule of its own."""
    carried = [verb for verb in VERBS | METHODS if rules.carrier(verb) in rule.verbs or "*" in rule.verbs]
    verbs = frozenset(carried) - {"impersonate"}
    if verbs:
        yield Rule(verbs, _ANY, _ANY)
        yield Rule(verbs, paths=("*",))


def _opens(grant: Grant, place: Place) -> bool:
    if "*" in grant.clusters or place.name in grant.clusters:
        return True
    return not place.name and grant.selector is not None and grant.selector <= place.selector


def _inside(place: Place, other: Place) -> bool:
    """Whether every cluster of one place is, and will be, in the other."""
    return (
        other == Place() or place == other or (not place.name and not other.name and other.selector <= place.selector)
    )


def _spelt_out(rule: Rule) -> Rule:
    """The rule with every verb in place of `*`, so that it can be held in parts."""
    if "*" not in rule.verbs:
        return rule
    return replace(rule, verbs=METHODS if rule.paths and not rule.resources else VERBS)


def _lists(rule: Rule) -> tuple[frozenset[str], ...]:
    whole = frozenset({""})
    return rule.verbs, rule.groups, rule.resources, rule.names or whole, rule.namespaces or whole


def _size(rule: Rule) -> int:
    """How many parts a rule has."""
    return math.prod(map(len, _lists(rule))) + len(rule.verbs) * len(rule.paths)


def _parts(rule: Rule) -> Iterator[Rule]:
    """The rule as many that each allow one verb on one thing."""
    for verb, group, resource, name, namespace in itertools.product(*map(sorted, _lists(rule))):
        yield Rule(
            frozenset({verb}),
            frozenset({group}),
            frozenset({resource}),
            frozenset({name} if rule.names else ()),
            frozenset({namespace} if rule.namespaces else ()),
        )
    for verb, path in itertools.product(sorted(rule.verbs), rule.paths):
        yield Rule(frozenset({verb}), paths=(path,))


def _covers(owner: Rule, wanted: Rule) -> bool:
    """Whether one rule allows all that another does."""
    if not _within(wanted.verbs, owner.verbs):
        return False
    if wanted.resources and not (
        _within(wanted.groups, owner.groups)
        and all(_resource_within(resource, owner.resources) for resource in wanted.resources)
        and (not owner.names or (wanted.names and wanted.names <= owner.names))
        and (not owner.namespaces or "*" in owner.namespaces or _narrowed(wanted, owner))
    ):
        return False
    return all(any(_path_within(path, known) for known in owner.paths) for path in wanted.paths)


def _touches(owner: Rule, wanted: Rule) -> bool:
    """Whether one rule may allow a part of what another does."""
    return bool(owner.verbs & (wanted.verbs | {"*"})) and bool(
        (owner.paths and wanted.paths) or (wanted.groups & owner.groups or "*" in owner.groups)
    )


def _within(wanted: frozenset[str], owned: frozenset[str]) -> bool:
    return "*" in owned or wanted <= owned


def _resource_within(resource: str, owned: frozenset[str]) -> bool:
    _, slash, subresource = resource.partition("/")
    return resource in owned or "*" in owned or bool(slash and f"*/{subresource}" in owned)


def _narrowed(wanted: Rule, owner: Rule) -> bool:
    return bool(wanted.namespaces) and "*" not in wanted.namespaces and wanted.namespaces <= owner.namespaces


def _path_within(path: str, known: str) -> bool:
    return path == known or (known.endswith("*") and path.startswith(known.rstrip("*")))
