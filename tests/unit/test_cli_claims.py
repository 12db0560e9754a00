"""By which name `cluster leave` takes away what a join has left in a member."""

import pytest

from onepass.cli import claims, foothold
from onepass.cli.claims import Claim

CLAIM = Claim("uid", "https://gateway.example.com", "wanted", "attempt")


@pytest.mark.parametrize(
    ("cluster", "gateway", "labels", "name"),
    [
        pytest.param("other", "uid", foothold.LABELS, "other", id="another cluster of this gateway"),
        pytest.param("wanted", "uid", foothold.LABELS, "wanted", id="this cluster"),
        pytest.param("other", "", foothold.LABELS, "other", id="of a gateway that was not to be known"),
        pytest.param("other", "else", foothold.LABELS, "wanted", id="of another gateway"),
        pytest.param("x; reboot", "uid", foothold.LABELS, "wanted", id="not a name"),
        pytest.param("", "uid", foothold.LABELS, "wanted", id="no name"),
        pytest.param("other", "uid", {}, "wanted", id="not OnePass's"),
    ],
)
def test_the_name_is_one_that_may_be_typed(cluster: str, gateway: str, labels: dict[str, str], name: str) -> None:
    marks = {claims.CLUSTER: cluster, claims.GATEWAY: gateway}
    assert CLAIM.named({"metadata": {"labels": {**labels}, "annotations": {**marks}}}) == name
