"""etc/ as a restore makes it beside."""

import os
from pathlib import Path

import pytest

from lava_deploy.beside import Restoring
from lava_deploy.model import Host
from lava_deploy.parts import etc
from lava_deploy.system import System


@pytest.fixture
def restoring(tmp_path: Path) -> Restoring:
    found = Restoring(Host.below(tmp_path).instance("demo"))
    (found.etc / "dispatcher.d/old").mkdir(parents=True)
    (found.etc / "dispatcher.d/old/dispatcher.yaml").write_text("dispatcher_ip: 10.0.0.1\n")
    return found


def configured(restoring: Restoring) -> list[str]:
    return sorted(os.listdir(restoring.etc / "dispatcher.d"))


def test_what_was_configured_for_the_former_worker_is_for_this_hosts(restoring: Restoring) -> None:
    (restoring.etc / "dispatcher.d/here").mkdir()
    (restoring.etc / "dispatcher.d/old.yaml").write_text("")
    etc.rename_worker(System(), restoring, "old", "here")
    assert configured(restoring) == ["here", "here.yaml"]
    assert (restoring.etc / "dispatcher.d/here/dispatcher.yaml").exists()


@pytest.mark.parametrize("former", ["", "here"])
def test_without_another_worker_all_stays(restoring: Restoring, former: str) -> None:
    etc.rename_worker(System(), restoring, former, "here")
    assert configured(restoring) == ["old"]
