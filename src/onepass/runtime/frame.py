"""What of the data plane the operator's settings decide, and how the first administrator reaches it."""

import ssl
from dataclasses import replace

from onepass.access.policy import Policy
from onepass.gateway import ir
from onepass.pki import tokens
from onepass.runtime import trust
from onepass.runtime.datadir import DataDir
from onepass.runtime.kubeconfig import Entry
from onepass.runtime.settings import Settings
from onepass.runtime.trust import Trust


def entry(settings: Settings, secrets: Trust) -> Entry:
    """How the first administrator reaches the gateway."""
    return Entry(
        server=settings.listen.url,
        ca=secrets.serving_ca_pem,
        user=trust.ADMIN,
        certificate=secrets.admin.certificate,
        private_key=secrets.admin.private_key,
    )


def gateway(settings: Settings, data: DataDir, secrets: Trust) -> ir.Gateway:
    """What of the data plane the operator's settings decide."""
    own, jwks = settings.accounts.issuers, tokens.jwks([secrets.accounts.public_key()])
    listener = ir.Listener(
        host=settings.listen.host,
        port=settings.listen.port,
        certificate=secrets.serving.certificate,
        private_key=secrets.serving.private_key,
        client_ca=secrets.client_ca_pem,
        client_crl=secrets.revocations(frozenset()),
        issuers=tuple(ir.Issuer(each, own, jwks) for each in own),
        known=ir.Known(own=secrets.own_digests, others=secrets.others.revoked, elsewhere=secrets.others.elsewhere),
    )
    sockets = ir.Sockets(apiserver=data.socket("apiserver"), probe=data.socket("probe"), companions=data.socket("ads"))
    made = ir.Gateway(listener, sockets, Policy(), audit_log=settings.audit_path)
    system = ssl.get_default_verify_paths().cafile
    return replace(made, system_trust=system) if system else made
