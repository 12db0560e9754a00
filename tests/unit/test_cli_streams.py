"""How open streams are shown, and which one an id means."""

from datetime import UTC, datetime

import pytest

from onepass.api.meta import Object
from onepass.cli import streamsgroup, streamviews
from onepass.cli.failure import Failure

NOW = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)


def stream(id: str, began: str = "2026-01-01T12:00:00Z", **spec: str) -> Object:
    told: Object = {"user": "alice", "cluster": "prod", "verb": "watch", "resource": "pods", "source": "[::1]:5"}
    return {"metadata": {"name": id, "creationTimestamp": began}, "spec": {**told, **spec}}


@pytest.mark.parametrize(
    ("spec", "cells"),
    [
        ({}, ("alice", "prod", "watch", "pods", "", "30s", "[::1]")),
        (
            {"verb": "create", "resource": "pods/exec", "object": "web", "namespace": "n"},
            ("alice", "prod", "exec", "pods/web", "n", "30s", "[::1]"),
        ),
        ({"resource": "pods/portforward", "object": "w"}, ("alice", "prod", "port-forward", "pods/w")),
        ({"verb": "get", "resource": "pods/log", "object": "w"}, ("alice", "prod", "logs", "pods/w")),
        ({"cluster": "", "resource": "clusters"}, ("alice", "(gateway)", "watch", "clusters")),
        ({"resource": "", "path": "/logs", "verb": "create"}, ("alice", "prod", "create", "/logs")),
        ({"actsAs": "bob"}, ("alice as bob", "prod")),
        ({"user": "\x1b[31mred", "cluster": "[bold]x"}, ("\ufffd[31mred", "\\[bold]x")),
    ],
)
def test_a_row_uses_the_words_that_people_know(spec: dict[str, str], cells: tuple[str, ...]) -> None:
    ((id, *row),) = streamviews.rows([stream("0123456789abcdef", **spec)], NOW)
    assert id == "01234567"
    assert tuple(row[: len(cells)]) == cells


def test_the_oldest_comes_first() -> None:
    young, old = stream("b", "2026-01-01T12:00:20Z"), stream("a", "2026-01-01T11:00:00Z")
    assert [row[0] for row in streamviews.rows([young, old], NOW)] == ["a", "b"]


def test_what_begins_and_ends_is_one_line_each() -> None:
    assert streamviews.line("ADDED", stream("0123456789"), NOW).startswith("[green]+[/]  01234567  alice  prod  watch")
    assert streamviews.line("DELETED", stream("0123456789"), NOW).startswith("[red]-[/]")
    assert streamviews.line("BOOKMARK", {}, NOW) == ""


@pytest.mark.parametrize(
    ("user", "cluster", "selector"),
    [
        ("", "", ""),
        ("alice", "prod", "spec.user=alice,spec.cluster=prod"),
        ("a,b=c\\d", "", "spec.user=a\\,b\\=c\\\\d"),
    ],
)
def test_names_go_into_a_selector_as_they_are(user: str, cluster: str, selector: str) -> None:
    assert streamviews.selector(user, cluster) == selector


def test_an_id_must_mean_one_stream() -> None:
    streams = [stream("0123aaaa"), stream("0123bbbb")]
    assert streamsgroup.one(streams, "0123a") is streams[0]
    for id, why in (("0123", "2 open streams"), ("9", "no open stream"), ("", "no open stream")):
        with pytest.raises(Failure) as failure:
            streamsgroup.one(streams, id)
        assert why in failure.value.what
