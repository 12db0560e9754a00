"""What changes while Envoy carries requests: clusters, credentials, policy, and the control plane itself."""

from dataclasses import replace

import pytest
from tests.protocol import dataplane
from tests.protocol.dataplane import Ask, Authorities, Plane, StartMember

from onepass.access.policy import Policy, Target
from onepass.gateway import ir


async def test_no_stream_is_cut_when_clusters_policy_or_credentials_change(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    member, other = await start_member(alpn=("h2", "http/1.1")), await start_member()
    first = replace(dataplane.described(member, authorities), credential=dataplane.x509(authorities, "before"))
    await plane.members(first)
    async with (
        dataplane.watching(plane) as watch,
        dataplane.upgraded(plane, "websocket") as shell,
        plane.http2() as client,
        client.stream("GET", "/m/prod/api?watch=1") as watch2,
    ):
        watch2_data = watch2.aiter_bytes()
        assert b"first" in await anext(watch2_data)

        changed = replace(first, credential=dataplane.x509(authorities, "after"), http2=True)
        await plane.members(changed, dataplane.described(other, authorities, "other"))
        assert (await ask("/m/other/x")).code == 200
        policy = Policy(targets={"policy": Target("policy", "second", "", "Gateway")})
        await plane.show(replace(plane.gateway, policy=policy))
        assert (await ask("/m/prod/after")).code == 200
        await plane.members(dataplane.described(other, authorities, "other"))  # even without its cluster

        shell.writer.write(b"still here")
        await shell.expect(b"still here")
        member.more.set()
        await watch.expect(b"last\n\r\n0\r\n\r\n")
        assert b"last" in await anext(watch2_data)
    assert [seen.headers.get("x-policy") for seen in member.seen] == ["none", "none", "none", "second"]
    # New requests use the new credential at once, although connections with the old one were open.
    assert [seen.peer for seen in member.seen] == ["before", "before", "before", "after"]


async def test_http2_to_a_member_is_kept_through_a_change_of_credential(
    plane: Plane, start_member: StartMember, authorities: Authorities
) -> None:
    member = await start_member(alpn=("h2", "http/1.1"))
    first = replace(
        dataplane.described(member, authorities), http2=True, credential=dataplane.x509(authorities, "before")
    )
    await plane.members(first)
    async with (
        plane.http2() as client,
        client.stream("GET", "/m/prod/api?watch=1") as watch,
    ):
        lines = watch.aiter_bytes()
        assert b"first" in await anext(lines)
        await plane.members(replace(first, credential=dataplane.x509(authorities, "after")))
        assert (await client.get("/m/prod/x")).status_code == 200
        member.more.set()
        assert b"last" in await anext(lines)
    assert [(seen.protocol, seen.peer) for seen in member.seen] == [("h2", "before"), ("h2", "after")]


async def test_a_new_token_is_used_from_the_next_request_on(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    member = await start_member()
    cluster = dataplane.described(member, authorities)
    for token in ("one", "two"):
        await plane.members(replace(cluster, credential=ir.Credential(token=token)))
        assert (await ask("/m/prod/x")).code == 200
    assert [seen.headers["authorization"] for seen in member.seen] == ["Bearer one", "Bearer two"]
    assert member.connections == 1


async def test_a_removed_cluster_is_no_longer_reached(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    member = await start_member()
    await plane.members(dataplane.described(member, authorities))
    assert (await ask("/m/prod/x")).code == 200
    await plane.members()
    assert (await ask("/m/prod/x")).code == 503
    assert len(member.seen) == 1


async def test_lua_that_does_not_compile_is_refused_and_the_policy_before_goes_on(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    await plane.members(dataplane.described(await start_member(), authorities))
    broken = Policy(targets={"policy": Target("policy", '" then', "", "Gateway")})
    generation = plane.ads.set(plane.builder.build(replace(plane.gateway, policy=broken)))
    (rejection,) = await plane.ads.acknowledged(generation, timeout=dataplane.DEADLINE)
    assert rejection.names == ("gatekeeper",)
    assert plane.refusals.refused == [rejection]
    assert (await ask("/m/prod/x")).code == 200


@pytest.mark.parametrize("wrong", ["ca", "credential"])
async def test_one_bad_member_holds_up_no_other(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities, wrong: str
) -> None:
    good = replace(dataplane.described(await start_member(), authorities), credential=dataplane.x509(authorities))
    bad = {
        "ca": replace(good, ca=b"not a certificate"),
        "credential": replace(good, credential=ir.Credential(certificate=b"not", private_key=b"these")),
    }[wrong]
    several = [replace(bad, name="bad0"), good, replace(bad, name="bad1")]
    members = {member.name: member for member in several}
    generation = plane.ads.set(plane.builder.build(replace(plane.gateway, members=members)))
    await plane.ads.acknowledged(generation, timeout=dataplane.DEADLINE)
    assert any("bad0" in name for name in plane.refusals.refused[0].names)
    assert (await ask("/m/prod/x")).code == 200


async def test_the_data_plane_goes_on_without_the_control_plane_and_is_sent_only_news_after(
    plane: Plane, ask: Ask, start_member: StartMember, authorities: Authorities
) -> None:
    prod = dataplane.described(await start_member(), authorities)
    await plane.members(prod)
    await plane.stop("ads")
    assert (await ask("/m/prod/x")).code == 200

    plane.start_discovery()
    other = dataplane.described(await start_member(), authorities, "other")
    async with dataplane.watching(plane):
        await plane.members(prod, other)
        assert (await ask("/m/other/x")).code == 200
