"""The compiled policy as Lua tables, and with them the whole source of the gatekeeper.

The tables are precomputed for one request: a set that holds everything is left out, equal rules, cluster sets and lists
of grants are written once, and of RBAC only what bears on members is kept. Same policy, same text.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources

from onepass.access.policy import Grant, Policy, Rule, Subjects, Target
from onepass.access.rules import CLUSTERS
from onepass.gateway import ir

# LuaJIT allows a function 65,536 constants, so the tables are filled by many small functions, and a long list of rules
# by many statements: the data plane refuses a script that it cannot load, and with it every change of the policy.
_CONSTANTS = 16_384
_RULES = 256  # of a list, in one statement
_UNSAFE = re.compile(rb"[^ !#-\[\]-~]")
_ESCAPES = {byte: b"\\%03d" % byte for byte in range(256)}
_START = """\
onepass = {}
policy = {
  bindings = {}, bound = { users = {}, groups = {} }, grants = {}, granted = { users = {}, groups = {} },
  targets = {}, accounts = {}, revoked = {},
}
local bindings, grants, targets, accounts, revoked =
  policy.bindings, policy.grants, policy.targets, policy.accounts, policy.revoked
local rules, sets, lists = {}, {}, {}
local function more(list, rest) for i = 1, #rest do list[#list + 1] = rest[i] end end
known = { own = {}, others = {}, elsewhere = {}, issuers = {} }
local own, others, elsewhere, issuers = known.own, known.others, known.elsewhere, known.issuers
"""
_NOTHING = ir.Known()


def source(policy: Policy, known: ir.Known = _NOTHING) -> str:
    """One Lua source that Envoy's Lua filter takes as its default script."""
    tables = _START + "".join(_chunks([*_statements(policy), *_about_credentials(known)]))
    return f"do\n{tables}end\n{_scripts()}"


def of_front(front: ir.Front, gatekeeper: str) -> str:
    """The gatekeeper as the listener of a host cluster's aggregator has it."""
    named = (
        ("allowed", front.allowed),
        ("users", front.users),
        ("groups", front.groups),
        ("uids", front.uids),
        ("withdrawn", front.withdrawn),
    )
    sets = "".join(f"{name}={_set(frozenset(values))}," for name, values in named)
    extras = ",".join(map(_quote, front.extras))
    return f"front={{{sets}extras={{{extras}}},passes={_quote(front.passes)}}}\n{gatekeeper}"


@functools.cache
def _scripts() -> str:
    """The scripts that the tables feed, each in a scope of its own."""
    here = resources.files("onepass.gateway")
    names = ("requestinfo.lua", "rules.lua", "audit.lua", "frontproxy.lua", "gatekeeper.lua")
    return "".join(f"do -- {name}\n{here.joinpath(name).read_text(encoding='utf-8')}end\n" for name in names)


def _chunks(statements: Iterable[str]) -> Iterator[str]:
    batch: list[str] = []
    room = _CONSTANTS
    for statement in statements:
        # A constant is a string, the table of a pair of brackets, or one of two numbers that a statement indexes by.
        weight = statement.count('"') + statement.count("{") + 2
        if batch and weight > room:
            yield _chunk(batch)
            batch.clear()
            room = _CONSTANTS
        batch.append(statement)
        room -= weight
    yield _chunk(batch)


def _chunk(batch: list[str]) -> str:
    return f"do local function fill()\n{''.join(batch)}end fill() end\n"


def _statements(policy: Policy) -> list[str]:
    """One statement a line; rules and sets before whatever points at them."""
    shared = _Shared()
    kept, bindings = _about_members(policy)
    lines = [f"bindings[#bindings+1]={{origin={_quote(o)},rules={shared.rules(rules)}}}\n" for o, rules in bindings]
    lines.extend(f"grants[#grants+1]={_grant(grant, shared)}\n" for grant in policy.grants)
    lines.extend(_held("bound", policy.bound, kept, shared))
    lines.extend(_held("granted", policy.granted, {index: index for index in range(len(policy.grants))}, shared))
    lines.extend(f"targets[{_quote(name)}]={_target(target)}\n" for name, target in sorted(policy.targets.items()))
    lines.extend(f"accounts[{_quote(user)}]={_quote(uid)}\n" for user, uid in sorted(policy.accounts.items()))
    lines.extend(f"revoked[{_quote(serial)}]=true\n" for serial in sorted(policy.revoked))
    return shared.lines + lines


def _about_credentials(known: ir.Known) -> Iterator[str]:
    for digest in sorted(known.own):
        yield f"own[{_quote(digest)}]=true\n"
    for digest, serials in sorted(known.others.items()):
        yield f"others[{_quote(digest)}]={{}}\n"
        yield from (f"others[{_quote(digest)}][{_quote(serial)}]=true\n" for serial in sorted(serials))
    yield from (f"elsewhere[{_quote(serial)}]=true\n" for serial in sorted(known.elsewhere))
    for issuer, claims in sorted(known.issuers.items()):
        required = "".join(f"{{{_quote(name)},{_quote(value)}}}," for name, value in claims.required)
        yield (
            f"issuers[{_quote(issuer)}]={{username={_quote(claims.username)},"
            f"username_prefix={_quote(claims.username_prefix)},groups={_quote(claims.groups)},"
            f"groups_prefix={_quote(claims.groups_prefix)},required={{{required}}}}}\n"
        )


def _grant(grant: Grant, shared: "_Shared") -> str:
    fields = [f"origin={_quote(grant.origin)}", f"rules={shared.rules(grant.rules)}"]
    if "*" not in grant.clusters:
        fields.append(f"clusters={shared.set(grant.clusters)}")
    fields.append(f"as_user={_true(grant.mode == 'Impersonate')}")
    if grant.not_before is not None:
        fields.append(f"not_before={grant.not_before}")
    if grant.not_after is not None:
        fields.append(f"not_after={grant.not_after}")
    return f"{{{','.join(fields)}}}"


def _target(target: Target) -> str:
    return (
        f"{{cluster={_quote(f'member/{target.name}')},authority={_quote(target.authority)},"
        f"prefix={_quote(target.prefix)},as_user={_true(target.mode == 'Impersonate')}}}"
    )


def _held(name: str, subjects: Subjects, kept: Mapping[int, int], shared: "_Shared") -> Iterator[str]:
    for sort, held in (("users", subjects.users), ("groups", subjects.groups)):
        for subject, indices in sorted(held.items()):
            if numbers := [kept[index] + 1 for index in indices if index in kept]:
                yield f"policy.{name}.{sort}[{_quote(subject)}]={shared.list(tuple(numbers))}\n"


def _about_members(policy: Policy) -> tuple[dict[int, int], list[tuple[str, tuple[Rule, ...]]]]:
    """The bindings that can decide about a member, reduced to such rules, and their new index by their old one."""
    kept: dict[int, int] = {}
    bindings: list[tuple[str, tuple[Rule, ...]]] = []
    for index, binding in enumerate(policy.bindings):
        rules = tuple(rule for rule in binding.rules if _is_about_members(rule))
        if rules and not binding.namespace:
            kept[index] = len(bindings)
            bindings.append((binding.origin, rules))
    return kept, bindings


def _is_about_members(rule: Rule) -> bool:
    clusters = rule.groups & {"*", CLUSTERS} and rule.resources & {"*", "clusters", "clusters/proxy", "*/proxy"}
    return bool(clusters or (rule.resources and rule.verbs & {"*", "impersonate"}))


class _Shared:
    """Rules, sets and lists, each written once. The methods give the expression that stands for what they are given.

    Each table is one that Lua's garbage collector visits again and again, at the cost of requests.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._rules: dict[tuple[Rule, ...], int] = {}
        self._sets: dict[frozenset[str], int] = {}
        self._lists: dict[tuple[int, ...], int] = {}

    def rules(self, rules: tuple[Rule, ...]) -> str:
        if rules not in self._rules:
            self._rules[rules] = number = len(self._rules) + 1
            self.lines.append(f"rules[{number}]={{{','.join(map(_rule, rules[:_RULES]))}}}\n")
            for begin in range(_RULES, len(rules), _RULES):
                part = ",".join(map(_rule, rules[begin : begin + _RULES]))
                self.lines.append(f"more(rules[{number}],{{{part}}})\n")
        return f"rules[{self._rules[rules]}]"

    def set(self, names: frozenset[str]) -> str:
        if names not in self._sets:
            self._sets[names] = len(self._sets) + 1
            self.lines.append(f"sets[{len(self._sets)}]={_set(names)}\n")
        return f"sets[{self._sets[names]}]"

    def list(self, numbers: tuple[int, ...]) -> str:
        if numbers not in self._lists:
            self._lists[numbers] = len(self._lists) + 1
            self.lines.append(f"lists[{len(self._lists)}]={{{','.join(map(str, numbers))}}}\n")
        return f"lists[{self._lists[numbers]}]"


def _rule(rule: Rule) -> str:
    fields = [
        f"{name}={_set(members)}"
        for name, members, everything in (
            ("verbs", rule.verbs, "*" in rule.verbs),
            ("groups", rule.groups, "*" in rule.groups),
            ("resources", rule.resources, "*" in rule.resources),
            ("names", rule.names, not rule.names),
            ("namespaces", rule.namespaces, not rule.namespaces or "*" in rule.namespaces),
        )
        if not everything
    ]
    if rule.paths:
        fields.append(f"paths={{{','.join(map(_quote, rule.paths))}}}")
    return f"{{{','.join(fields)}}}"


def _set(names: frozenset[str]) -> str:
    return "{" + ",".join(f"[{_quote(name)}]=true" for name in sorted(names)) + "}"


def _true(value: bool) -> str:
    return "true" if value else "false"


def _quote(text: str) -> str:
    """A Lua string literal for any text: whatever is not plain ASCII goes by its number."""
    plain = _UNSAFE.sub(lambda found: _ESCAPES[found[0][0]], text.encode("utf-8", "surrogatepass"))
    return f'"{plain.decode("ascii")}"'
