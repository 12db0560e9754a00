"""How passes are shown: in a table, and in sentences. Pure: objects in, markup out."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.cli import clusterviews, durations
from onepass.cli.output import safe

COLUMNS = ("NAME", "WHO", "WHERE", "WHAT", "UNTIL", "IN FORCE")
SOON = timedelta(hours=2)


def _texts(value: JSON) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _objects(value: JSON) -> list[Object]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def ends(granted: Object) -> datetime | None:
    return durations.moment(meta.text(meta.section(granted, "spec"), "notAfter"))


def standing(granted: Object, now: datetime) -> str:
    """One word or two: `yes`, `suspended`, `not yet`, `expired`."""
    spec = meta.section(granted, "spec")
    begins = durations.moment(meta.text(spec, "notBefore"))
    over = ends(granted)
    if spec.get("suspended") is True:
        return "suspended"
    if over is not None and over <= now:
        return "expired"
    return "not yet" if begins is not None and begins > now else "yes"


def expires_soon(granted: Object, now: datetime) -> bool:
    over = ends(granted)
    return standing(granted, now) == "yes" and over is not None and over - now <= SOON


def who(granted: Object) -> str:
    """`User alice, Group dev, ServiceAccount build/robot`."""
    told = []
    for subject in _objects(meta.section(granted, "spec").get("subjects")):
        namespace = meta.text(subject, "namespace")
        named = f"{namespace}/{meta.text(subject, 'name')}" if namespace else meta.text(subject, "name")
        told.append(f"{meta.text(subject, 'kind')} {named}")
    return ", ".join(told)


def where(granted: Object) -> str:
    """`prod, staging, env=dev`: cluster names, then the selector."""
    clusters = meta.section(meta.section(granted, "spec"), "clusters")
    told = ["every cluster" if name == "*" else name for name in _texts(clusters.get("names"))]
    selector = clusters.get("selector")
    if isinstance(selector, dict):
        parts = [f"{k}={v}" for k, v in sorted(meta.section(selector, "matchLabels").items())]
        for wish in _objects(selector.get("matchExpressions")):
            values = _texts(wish.get("values"))
            told_values = f" ({','.join(values)})" if values else ""
            parts.append(f"{meta.text(wish, 'key')} {meta.text(wish, 'operator')}{told_values}")
        told.append(",".join(parts) or "every cluster")
    return ", ".join(told)


def _resources(rule: Object) -> Iterable[str]:
    groups = _texts(rule.get("apiGroups"))
    named = [group for group in groups if group not in ("", "*")]
    for resource in _texts(rule.get("resources")):
        plural, slash, subresource = resource.partition("/")
        bare = [resource] if not named or "" in groups or "*" in groups else []
        yield from bare + [f"{plural}.{group}{slash}{subresource}" for group in named]
    yield from _texts(rule.get("nonResourceURLs"))


def what(granted: Object) -> str:
    """`get,list,watch on pods,pods/log in build`, rules parted by `; `."""
    told = []
    for rule in _objects(meta.section(granted, "spec").get("rules")):
        text = f"{','.join(_texts(rule.get('verbs')))} on {','.join(_resources(rule))}"
        names = _texts(rule.get("resourceNames"))
        namespaces = _texts(rule.get("namespaces"))
        told.append(
            text
            + (f" named {','.join(names)}" if names else "")
            + (f" in {','.join(namespaces)}" if namespaces else "")
        )
    return "; ".join(told)


def _colour(word: str) -> str:
    return f"[{'green' if word == 'yes' else 'yellow' if word == 'not yet' else 'red'}]{word}[/]"


def rows(passes: Sequence[Object], now: datetime) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for granted in passes:
        over = ends(granted)
        found.append(
            (
                safe(meta.name(granted)),
                safe(who(granted)),
                safe(where(granted)),
                safe(what(granted)),
                durations.clock(over, now) if over else "no end",
                _colour(standing(granted, now)),
            )
        )
    return found


def sentences(granted: Object, now: datetime) -> list[str]:
    """A pass told in sentences, as markup."""
    spec = meta.section(granted, "spec")
    impersonates = meta.text(meta.section(spec, "identity"), "mode") == "Impersonate"
    told = [f"Pass [bold]{safe(meta.name(granted))}[/] lets [bold]{safe(who(granted))}[/]"]
    told += [f"  {safe(rule)}" for rule in what(granted).split("; ")]
    told.append(f"on [bold]{safe(where(granted))}[/].")
    told.append(
        "Members see the user by name, and their own rules apply on top."
        if impersonates
        else "Members see the gateway's credential; these rules are the bound."
    )
    begins, over = durations.moment(meta.text(spec, "notBefore")), ends(granted)
    if begins is not None:
        told.append(f"It begins {durations.clock(begins, now)}.")
    told.append(f"It ends {durations.clock(over, now)}." if over else "It has no end.")
    word = standing(granted, now)
    told.append({"yes": "It is [green]in force[/].", "not yet": "It is [yellow]not yet in force[/]."}.get(word, ""))
    if word in ("suspended", "expired"):
        told.append(f"It is [red]{word}[/] and grants nothing.")
    used = durations.moment(meta.text(meta.section(granted, "status"), "lastUsed"))
    if used is not None:
        told.append(f"It was last used {durations.clock(used, now)}.")
    for condition in clusterviews.conditions(granted):
        message = meta.text(condition, "message")
        if word == "yes" and condition.get("status") == "False" and message:
            told.append(f"[yellow]Still it opens nothing[/]: {safe(message)}.")
    return [sentence for sentence in told if sentence]
