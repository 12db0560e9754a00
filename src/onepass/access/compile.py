"""From objects to the policy that decides: RBAC, passes, clusters, service accounts and certificates taken back.

An object that cannot be read grants nothing and stops nothing else: there is no deny rule that its loss could lift.
Objects are compiled in the order of their names, so that equal objects give an equal policy.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from onepass.access import labels, reading
from onepass.access.labels import Index
from onepass.access.policy import Binding, Grant, Policy, Role, Rule, Selector, Subjects
from onepass.access.reading import PassHeld, RoleHeld, RoleRules, Subject
from onepass.api import meta
from onepass.api.meta import Object

T = TypeVar("T")
Order = tuple[str, str]

Objects = Mapping[str, Sequence[Object]]

_RBAC = "rbac.authorization.k8s.io"


def compile(objects: Objects) -> Policy:
    """The policy of these objects, given by Resource.key (`passes.access.karpor.io`); a missing kind is empty."""
    return Compiler().compile(objects)


class Compiler:
    """Compiles again and again: an object that is still the same one in memory is not read a second time."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, tuple[Order, Object, object]]] = {}

    def compile(self, objects: Objects) -> Policy:
        """As the function `compile`; objects must not be altered once they were given."""
        clusters = self._each(objects, "clusters.cluster.karpor.io", reading.cluster)
        passes = self._each(objects, "passes.access.karpor.io", reading.grant)
        roles = self._each(objects, f"clusterroles.{_RBAC}", reading.role)
        rules = _aggregated(roles) | {
            role.role: role.rules for role in self._each(objects, f"roles.{_RBAC}", reading.role)
        }
        wide = self._each(objects, f"clusterrolebindings.{_RBAC}", reading.binding)
        narrow = self._each(objects, f"rolebindings.{_RBAC}", reading.binding)
        bindings = [(held, rules[held.role]) for held in wide + narrow if rules.get(held.role)]
        granted = _granted(passes, Index({each.target.name: each.labels for each in clusters}))
        return Policy(
            bindings=tuple(Binding(held.origin, rules, held.namespace) for held, rules in bindings),
            bound=_subjects(held for held, _ in bindings),
            grants=tuple(grant for _, grant in granted),
            granted=_subjects(held for held, _ in granted),
            targets={each.target.name: each.target for each in clusters},
            roles=rules,
            accounts=dict(self._each(objects, "serviceaccounts", reading.account)),
            revoked=frozenset(self._each(objects, "certificatesigningrequests.certificates.k8s.io", reading.revoked)),
        )

    def _each(self, objects: Objects, key: str, read: Callable[[Object], T | None]) -> list[T]:
        """What `read` makes of every object of a kind, in the order of their names; without what says nothing."""
        known = self._seen.get(key, {})
        # An entry keeps its object alive, so an id that is found again is still that of the same object.
        entries = [known.get(id(obj)) or (_order(obj), obj, _attempt(read, obj)) for obj in objects.get(key, ())]
        self._seen[key] = {id(entry[1]): entry for entry in entries}
        return [made for _, _, made in sorted(entries, key=lambda entry: entry[0]) if made is not None]  # type: ignore[misc]


def _order(obj: Object) -> Order:
    return meta.namespace(obj), meta.name(obj)


def _attempt(read: Callable[[Object], T | None], obj: Object) -> T | None:
    try:
        return read(obj)
    except ValueError:
        return None


def _subjects(held: Iterable[RoleHeld | PassHeld]) -> Subjects:
    """Who holds which index."""
    index: dict[Subject, list[int]] = defaultdict(list)
    for number, each in enumerate(held):
        for subject in each.subjects:
            index[subject].append(number)
    users = {name: tuple(numbers) for (sort, name), numbers in sorted(index.items()) if sort == "users"}
    return Subjects(
        users, {name: tuple(numbers) for (sort, name), numbers in sorted(index.items()) if sort == "groups"}
    )


def _aggregated(roles: Sequence[RoleRules]) -> dict[Role, tuple[Rule, ...]]:
    """Rules by ClusterRole. An aggregated one has those of the roles it selects, and theirs in turn; its own count not.

    Rule: k8s.io/kubernetes/pkg/controller/clusterroleaggregation.
    """
    plain = {role.role[1]: role.rules for role in roles if role.selectors is None}
    index = Index({role.role[1]: role.labels for role in roles})
    parts = {role.role[1]: _parts(index, role.selectors) for role in roles if role.selectors is not None}
    found: dict[Role, tuple[Rule, ...]] = {("", name): rules for name, rules in plain.items()}
    for name in parts:
        reached: set[str] = set()
        ahead = {name}
        while ahead:
            reached |= ahead
            ahead = {part for each in ahead for part in parts.get(each, ())} - reached
        found["", name] = tuple(dict.fromkeys(rule for part in sorted(reached) for rule in plain.get(part, ())))
    return found


def _parts(index: Index, selectors: Sequence[Object]) -> frozenset[str]:
    chosen = (_attempt(index.select, selector) or frozenset() for selector in selectors)
    return frozenset[str]().union(*chosen)


def _granted(passes: Sequence[PassHeld], clusters: Index) -> list[tuple[PassHeld, Grant]]:
    """Passes with their clusters. Equal rules and equal choices become one object, since most passes are alike."""
    chosen: dict[tuple[frozenset[str], str], tuple[frozenset[str], Selector | None]] = {}
    same: dict[tuple[Rule, ...], tuple[Rule, ...]] = {}
    granted: list[tuple[PassHeld, Grant]] = []
    for held in passes:
        choice = (held.names, repr(held.selector))
        if choice not in chosen:
            chosen[choice] = _chosen(clusters, held)
        names, selector = chosen[choice]
        # A pass whose selector chooses nothing is kept: whoever labels a cluster must be seen to open it.
        if held.rules and held.subjects and (names or selector is not None):
            rules = same.setdefault(held.rules, held.rules)
            grant = Grant(held.origin, rules, names, held.mode, held.not_before, held.not_after, selector)
            granted.append((held, grant))
    return granted


def _chosen(clusters: Index, held: PassHeld) -> tuple[frozenset[str], Selector | None]:
    """The clusters of a pass, and its selector if that can be read."""
    if held.selector is None:
        return held.names, None
    if not any(held.selector.values()):
        return held.names | {"*"}, frozenset()
    selected = _attempt(clusters.select, held.selector)
    if selected is None:
        return held.names, None
    return held.names | selected, labels.requirements(held.selector)
