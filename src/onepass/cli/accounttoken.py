"""The token of the account that a join has made in a member."""

import shlex
import time

from onepass.api import meta
from onepass.cli import foothold
from onepass.cli.failure import Failure, Refused
from onepass.cli.foothold import Foothold
from onepass.cli.memberclient import Member
from onepass.pki import lifetimes


def issue(member: Member, ground: Foothold, seconds: int) -> str:
    """A bound token of the account. Raises Failure, also for a member that gives none that OnePass could renew."""
    try:
        answer = member.create(ground.token, foothold.token_request(seconds))
    except Refused as refused:
        if refused.code != 404:
            raise
        told = f"the member makes no token for {ground.namespace}/{foothold.ACCOUNT}: the account is gone"
        raise Failure(
            f"{told}, or it has no TokenRequest API (Kubernetes before 1.22)",
            f"onepass cluster leave {shlex.quote(ground.cluster)} --kubeconfig FILE, and join it again then",
        ) from refused
    token = meta.text(meta.section(answer, "status"), "token")
    held = lifetimes.bound(token)
    if held is None:
        raise Failure(
            "the member's TokenRequest API gave no bound token", "OnePass needs Kubernetes 1.22 or later on a member"
        )
    if held.lifetime.ends <= time.time():
        raise Failure("the member gave a token that has ended already", "compare the clocks of this machine and of it")
    return token
