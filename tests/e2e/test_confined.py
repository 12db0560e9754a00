"""The gateway with no more than its pod has: nobody's uid, no capabilities, a root that cannot be written to."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.e2e.conftest import BIN, READY
from tests.machine import ROOT, free_port

pytestmark = pytest.mark.e2e

KUBECTL = str(BIN / "kubectl")
MANIFEST = ROOT / "deploy" / "manifests" / "standalone.yaml"
NOBODY = 65532
HOME = pwd.getpwuid(0).pw_dir
# The volume goes to /mnt, since /tmp, where it is made, is another one in there. The home of root opens for the program
# and its interpreter alone, should they be in it.
WITHIN = """
mount --make-rprivate /
mount --bind "$1" /mnt
mount -t tmpfs tmpfs /media
mkdir /media/python /media/project
mount --bind "$2" /media/python
mount --bind "$3" /media/project
mount -t tmpfs -o mode=755 tmpfs "$4"
for place in "$2=python" "$3=project"; do
  case "$place" in "$4"/*) mkdir -p "${place%%=*}"; mount --bind "/media/${place##*=}" "${place%%=*}";; esac
done
mount -t tmpfs -o size=64m,mode=1777 tmpfs /tmp
for each in / /media "$4"; do mount -o remount,ro,bind $each; done
shift 4
exec setpriv --reuid=65532 --regid=65532 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def within(volume: Path, *command: str) -> list[str]:
    return ["unshare", "--mount", "sh", "-ec", WITHIN, "sh", str(volume), sys.base_prefix, str(ROOT), HOME, *command]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """As a kubelet hands it over: root's, writable for the group. Skips where nobody can be confined so."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("to confine the gateway takes root, `unshare` and `setpriv`")
    found = tmp_path / "volume"
    found.mkdir()
    os.chown(found, 0, NOBODY)
    found.chmod(0o2775)
    tried = subprocess.run(
        within(found, str(BIN / "onepass"), "--version"), capture_output=True, text=True, timeout=60, check=False
    )
    if tried.returncode:
        pytest.skip(f"this machine does not let anybody be confined so: {tried.stderr.strip()}")
    return found


def test_what_the_pod_has_is_enough(volume: Path) -> None:
    """By the options of the plain manifest."""
    workload = next(each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "StatefulSet")
    port = free_port()
    changed = {"--data-dir": "/mnt/data", "--listen": f"127.0.0.1:{port}"}
    named = [each.partition("=") for each in workload["spec"]["template"]["spec"]["containers"][0]["args"]]
    options = [f"{name}={changed.get(name, value)}" if value else name for name, _, value in named]
    with (volume.parent / "records").open("w+") as records:
        process = subprocess.Popen(
            within(volume, str(BIN / "onepass"), *options),
            env={"PATH": os.environ["PATH"], "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=records,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            told = []
            for line in process.stderr:  # of `up`, which gives up by itself when it does not get ready
                told.append(line)
                if line.startswith(READY):
                    break
            assert told, "it said nothing"
            assert told[-1].startswith(READY), "".join(told)
            admin = str(volume / "data" / "admin.kubeconfig")
            asked = [KUBECTL, "--kubeconfig", admin, "--context", "onepass", "get", "namespaces", "-o", "name"]
            got = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
            assert "namespace/kube-system" in got.stdout
            owners = set()
            for path in (volume / "data").rglob("*"):
                with contextlib.suppress(FileNotFoundError):  # one that is written beside another, and takes its place
                    owners.add(path.stat().st_uid)
            assert owners == {NOBODY}
            processes = [Path(f"/proc/{process.pid}"), *(Path(f"/proc/{child}") for child in children(process.pid))]
            assert len(processes) > 1  # Envoy
            for each in processes:
                status = dict(line.split(":", 1) for line in (each / "status").read_text().splitlines())
                assert status["Uid"].split() == [str(NOBODY)] * 4
                assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
                assert status["NoNewPrivs"].strip() == "1"
        finally:
            process.terminate()
            process.communicate(timeout=60)
        assert process.returncode == 0
        records.seek(0)
        assert "/api/v1/namespaces" in records.read()


def test_nothing_else_can_be_written_to(volume: Path) -> None:
    """Else the test above would prove little."""
    tried = f"for each in / /etc /usr /opt {HOME}; do touch $each/x && echo $each; done; touch /mnt/x /tmp/x && echo so"
    done = subprocess.run(within(volume, "sh", "-c", tried), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "so\n"


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
