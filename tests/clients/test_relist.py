"""A client whose place in a watch is forgotten is told 410, lists anew and watches on: the official Python client on
Kubernetes' own kube-apiserver, directly and through the gateway. The own API: tests/protocol/api/test_api_relist.py."""

import pytest
from tests.clients import access, kubectls
from tests.clients.access import Proven
from tests.e2e.conftest import Gateway
from tests.programs import relisting
from tests.programs.gomembers import GoMember
from tests.programs.relisting import WANTED

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def member(gateway: Gateway, kubemember: GoMember, tmp_path_factory: pytest.TempPathFactory) -> access.Member:
    it = kubemember
    proven = Proven(it.endpoint, it.ca.encode(), it.certificate.encode(), it.key.encode(), it.token)
    return access.member(gateway, tmp_path_factory.mktemp("relist"), "relist", proven, real=True)


@pytest.mark.parametrize("way", ["direct", "certificate", "token"])
def test_a_watch_that_lost_its_place_goes_on(kubemember: GoMember, member: access.Member, way: str) -> None:
    to = {"direct": member.direct, **member.through}[way]
    namespace = f"relist-{way}"
    assert kubectls.newest().run(to, "create", "namespace", namespace).returncode == 0
    told = relisting.run(to.kubeconfig, namespace, kubemember.compact)
    assert told.event[:5] == [200, "ERROR", "Status", 410, "Expired"]
    assert told.refused[0] == 410
    assert told.seen == WANTED
