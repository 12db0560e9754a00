"""Service-account tokens as an API server makes and takes them: the gateway's own and those of sandbox members."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from onepass.access.identity import AUTHENTICATED, Identity
from onepass.access.policy import Policy
from onepass.apiserver import tokenrequest
from onepass.apiserver.reviewers import Verified
from onepass.pki import tokens

_TOKEN_LONGEST = 30 * 86400  # seconds


@dataclass(frozen=True, slots=True)
class Accounts:
    """`issuers`: the first for new tokens, any for those that are taken. `policy` knows which accounts there are."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    issuers: Sequence[str]
    policy: Callable[[], Policy]

    def sign(
        self, account: tokenrequest.Account, audiences: Sequence[str], seconds: int, now: float
    ) -> tokenrequest.Token:
        granted = tuple(audiences) or (self.issuers[0],)
        bound = tokens.Account(account.namespace, account.name, account.uid)
        token = tokens.Token(bound, granted, int(now), int(now) + min(seconds, _TOKEN_LONGEST), str(uuid.uuid4()))
        return tokenrequest.Token(tokens.sign(self.key, self.issuers[0], token), granted, token.expires)

    async def verify(self, text: str, audiences: Sequence[str]) -> Verified | None:
        """As the data plane does: also the account must still be there, and the same one."""
        wanted = tuple(audiences or self.issuers)
        try:
            token = tokens.verify(text, [self.key.public_key()], self.issuers, wanted, time.time())
        except tokens.TokenRefused:
            return None
        account = token.account
        if self.policy().accounts.get(account.user) != account.uid:
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account.namespace}", AUTHENTICATED)
        has = tuple(audience for audience in wanted if audience in token.audiences)
        return Verified(Identity(account.user, groups, account.uid), has)
