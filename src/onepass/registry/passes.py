"""Passes. A pass that could never match anything is refused: its author meant something else."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from onepass.access.identity import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED
from onepass.api import access_v1beta1, errors, meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object, Resource
from onepass.registry import causes, names, passrules, rolerules, selection
from onepass.registry.strategy import Actor, Column, Strategy

RESOURCE = Resource("access.karpor.io", "v1beta1", "Pass", "passes", "pass", namespaced=False)
MODES = ("Gateway", "Impersonate")

# The names that begin with "system:" and that somebody can have.
_KNOWN = {
    "User": re.compile(r"system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+"),
    "Group": re.compile(rf"{AUTHENTICATED}|system:serviceaccounts(:[a-z0-9-]+)?"),
}


def in_force(obj: Object, now: float) -> str:
    """Empty when the pass counts at `now`, else why not: Suspended, NotYet or Expired."""
    spec = meta.section(obj, "spec")
    if spec.get("suspended") is True:
        return "Suspended"
    begin, end = _seconds(spec.get("notBefore")), _seconds(spec.get("notAfter"))
    if begin is not None and now < begin:
        return "NotYet"
    return "Expired" if end is not None and now >= end else ""


def _seconds(value: JSON) -> float | None:
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) and value else None


def _on_create(obj: Object, actor: Actor) -> Object:
    if in_force(obj, actor.now) == "Expired":
        told = [causes.invalid("spec.notAfter", meta.section(obj, "spec").get("notAfter"), "must lie in the future")]
        raise errors.invalid(RESOURCE, meta.name(obj), told)
    return _with_groups(obj)


def _on_update(_old: Object, new: Object, _actor: Actor) -> Object:
    return _with_groups(new)


def _with_groups(obj: Object) -> Object:
    spec = meta.section(obj, "spec")
    return {**obj, "spec": {**spec, "subjects": rolerules.with_groups(spec.get("subjects"))}}


def _validate(obj: Object, _old: Object | None) -> Sequence[Cause]:
    spec = meta.section(obj, "spec")
    wrong: list[Cause] = []
    subjects, rules = rolerules.objects(spec.get("subjects")), rolerules.objects(spec.get("rules"))
    if not subjects:
        wrong.append(causes.required("spec.subjects", "a pass needs at least one user, group or service account"))
    for index, subject in enumerate(subjects):
        wrong += _subject(subject, f"spec.subjects[{index}]")
    wrong += _clusters(meta.section(spec, "clusters"))
    if not rules:
        wrong.append(causes.required("spec.rules", "a pass without rules allows nothing"))
    for index, rule in enumerate(rules):
        wrong += passrules.wrong(rule, f"spec.rules[{index}]")
    mode = meta.section(spec, "identity").get("mode", MODES[0])
    if mode not in MODES:
        wrong.append(causes.unsupported("spec.identity.mode", mode, MODES))
    elif mode == MODES[1] and not wrong and all(map(_hidden, subjects)):
        told = "no member is shown a service account, so that its requests would all be refused: use Gateway"
        wrong.append(causes.invalid("spec.identity.mode", mode, told))
    begin, end = _seconds(spec.get("notBefore")), _seconds(spec.get("notAfter"))
    if begin is not None and end is not None and end <= begin:
        wrong.append(causes.invalid("spec.notAfter", spec.get("notAfter"), "must lie after notBefore"))
    return wrong


def _subject(subject: Object, field: str) -> Iterable[Cause]:
    yield from rolerules.subject(subject, field)
    kind, name = meta.text(subject, "kind"), meta.text(subject, "name")
    if name in (ANONYMOUS, UNAUTHENTICATED):
        yield causes.invalid(f"{field}.name", name, "no cluster is open to who does not say who they are")
    elif kind in _KNOWN and name.startswith("system:") and not _KNOWN[kind].fullmatch(name):
        told = f'nobody can be this {kind.lower()}: names that begin with "system:" are refused at login'
        yield causes.invalid(f"{field}.name", name, told)


def _hidden(subject: Object) -> bool:
    """Whether a subject is one whose name no member is ever shown."""
    name = meta.text(subject, "name")
    return subject.get("kind") == "ServiceAccount" or name.startswith(
        ("system:serviceaccount:", "system:serviceaccounts")
    )


def _clusters(clusters: Object) -> Iterable[Cause]:
    listed = rolerules.texts(clusters.get("names"))
    if not listed and "selector" not in clusters:
        yield causes.required("spec.clusters", "names or a selector are needed; names: ['*'] means every cluster")
    for index, name in enumerate(listed):
        for problem in names.subdomain(name) if name != "*" else ():
            yield causes.invalid(f"spec.clusters.names[{index}]", name, problem)
    yield from selection.check(meta.section(clusters, "selector"), "spec.clusters.selector")


def anything(_name: str) -> bool:
    """What `strategy` takes for a cluster when nothing is known of them."""
    return True


def _warn(obj: Object, is_cluster: Callable[[str], bool]) -> Sequence[str]:
    spec = meta.section(obj, "spec")
    subjects = rolerules.objects(spec.get("subjects"))
    shows = meta.text(meta.section(spec, "identity"), "mode") == MODES[1]
    told: list[str] = []
    for index, subject in enumerate(subjects):
        if subject.get("name") == AUTHENTICATED:
            told.append(f"spec.subjects[{index}]: everyone who can log in is in {AUTHENTICATED}")
        if shows and _hidden(subject):
            told.append(
                f"spec.subjects[{index}]: no member is shown a service account, so Impersonate gives it nothing"
            )
    listed = rolerules.texts(meta.section(spec, "clusters").get("names"))
    for index, name in enumerate(listed):
        if name != "*" and not is_cluster(name):
            told.append(f'spec.clusters.names[{index}]: there is no cluster "{name}" so far')
    everywhere = "*" in listed
    for index, rule in enumerate(rolerules.objects(spec.get("rules"))):
        told += [f"spec.rules[{index}]: {odd}" for odd in passrules.odd(rule, everywhere=everywhere)]
    return told


def _subjects_cell(obj: Object, _now: float) -> str:
    told = []
    for subject in rolerules.objects(meta.section(obj, "spec").get("subjects")):
        kind, name = meta.text(subject, "kind"), meta.text(subject, "name")
        inside = f"{meta.text(subject, 'namespace')}/" if kind == "ServiceAccount" else ""
        told.append(name if kind == "User" else f"{kind.lower()}:{inside}{name}")
    return ",".join(told)


def _clusters_cell(obj: Object, _now: float) -> str:
    clusters = meta.section(meta.section(obj, "spec"), "clusters")
    told = list(rolerules.texts(clusters.get("names")))
    if "selector" in clusters:
        selector = meta.section(clusters, "selector")
        told += [f"{key}={value}" for key, value in meta.section(selector, "matchLabels").items()]
        for expression in rolerules.objects(selector.get("matchExpressions")):
            values = ",".join(rolerules.texts(expression.get("values")))
            told.append(
                " ".join(filter(None, [meta.text(expression, "key"), meta.text(expression, "operator"), values]))
            )
        if not meta.section(selector, "matchLabels") and not selector.get("matchExpressions"):
            told.append("*")
    return ",".join(told)


def _until_cell(obj: Object, _now: float) -> str:
    return meta.text(meta.section(obj, "spec"), "notAfter") or "forever"


def _in_force_cell(obj: Object, now: float) -> str:
    return in_force(obj, now) or "True"


def _last_used_cell(obj: Object, _now: float) -> str:
    return meta.text(meta.section(obj, "status"), "lastUsed") or "<unknown>"


def _mode_cell(obj: Object, _now: float) -> str:
    return meta.text(meta.section(meta.section(obj, "spec"), "identity"), "mode") or MODES[0]


def strategy(is_cluster: Callable[[str], bool] = anything) -> Strategy:
    """Passes; `is_cluster` tells whether a cluster of that name is registered."""
    return replace(STRATEGY, warn=partial(_warn, is_cluster=is_cluster))


STRATEGY = Strategy(
    resource=RESOURCE,
    model=access_v1beta1.Pass,
    columns=(
        Column("Subjects", _subjects_cell, description="Who holds the pass."),
        Column("Clusters", _clusters_cell, description="The clusters that it opens."),
        Column("Until", _until_cell, description="When it ends."),
        Column("In Force", _in_force_cell, description="Whether it counts now, or why not."),
        Column("Last Used", _last_used_cell, priority=1, description="When a request was last allowed by it."),
        Column("Identity", _mode_cell, priority=1, description="As whom requests reach the cluster."),
    ),
    subresources={"status": ("status",)},
    prepare_create=_on_create,
    prepare_update=_on_update,
    validate=_validate,
    warn=partial(_warn, is_cluster=anything),
)
