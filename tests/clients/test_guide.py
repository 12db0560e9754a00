"""The programs in docs/guides/clients.md run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.clients import sdks
from tests.clients.access import Member

pytestmark = pytest.mark.e2e

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "clients.md"


def program(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_a_program_of_the_guide_runs(member: Member, language: str, tmp_path: Path) -> None:
    config = yaml.safe_load(member.certificate.kubeconfig.read_text())
    config["contexts"][0]["name"] = "prod"
    (tmp_path / "alice.kubeconfig").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-c", program(language)]
    if language == "javascript":
        try:
            node, main = sdks.javascript()
        except sdks.SdkMissing as missing:
            pytest.skip(str(missing))
        script = Path(main).with_name("guide.mjs")  # beside the packages that it imports
        script.write_text(program(language))
        command = [node, str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=sdks.DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
