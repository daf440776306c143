import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lava_deploy.errors import CommandFailed
from lava_deploy.playbook import Playbook

pytestmark = pytest.mark.contract
PLAYBOOKS = sorted(Path(__file__).resolve().parents[2].joinpath("playbooks").glob("*.yml"))
PRIVATE = "lava-deploy-playbook-*"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_ansible_understands_a_playbook_without_us(path, tmp_path):
    command = [Path(sys.prefix, "bin/ansible-playbook"), "--syntax-check", "-i", "host,", path]
    checked = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_a_playbook_with_nothing_to_do_changes_nothing_and_leaves_no_trace(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    begun: list[str] = []
    done = Playbook().run("host-undo.yml", {"state": str(tmp_path)}, begun.append, {"key": "k3y"})
    assert done.changed == ()
    assert begun == ["Take back directories, files and services"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert list(Path("/run").glob(PRIVATE)) == []


def test_a_failing_task_is_named_with_what_it_said(tmp_path):
    (tmp_path / "host.json").write_text("no record")
    with pytest.raises(CommandFailed, match=r"Take back directories.*Expecting value"):
        Playbook().run("host-undo.yml", {"state": str(tmp_path)}, print)
    assert list(Path("/run").glob(PRIVATE)) == []
