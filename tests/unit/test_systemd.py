"""What systemd tells of services, by what systemctl(1) prints."""

from lava_deploy.model import Host, Service
from lava_deploy.parts import systemd
from lava_deploy.system import Finished

HOST = Host()
WEB = Service("web", "web-a", "lava-one", "web")
SHOWN = """\
Id=lava-deploy-web-a@one.service
ActiveState=active
SubState=running
StateChangeTimestamp=Wed 2026-11-25 03:14:15 UTC
NRestarts=2
Result=success

Id=lava-deploy-web-a@two.service
ActiveState=activating
SubState=auto-restart
StateChangeTimestamp=
NRestarts=0
Result=exit-code
"""


class Shows:
    """A machine whose systemctl shows this, however often it is asked."""

    def __init__(self, text: str) -> None:
        self.text, self.commands = text, []

    def run(self, command: list[str]) -> Finished:
        self.commands.append(command)
        return Finished(0, self.text, "")


def states(system: Shows, names: list[str]) -> dict:
    wanted = {HOST.instance(name): [WEB] for name in names}
    found = systemd.Systemd(system, HOST).states(wanted)
    return {instance.name: states["web-a"] for instance, states in found.items()}


def test_what_fails_and_comes_again_is_told_in_words():
    found = states(Shows(SHOWN), ["one", "two"])
    assert found["one"].running and not found["two"].running
    assert found["one"].detail == "running, since Wed 2026-11-25 03:14:15 UTC, restarted 2 times"
    assert found["two"].detail == "auto-restart, after exit-code"


def test_what_systemd_has_not_loaded_does_not_run():
    assert states(Shows(SHOWN), ["one", "three"])["three"] == systemd.NOT_RUNNING


def test_systemd_is_asked_once_for_all_instances_and_not_at_all_for_none():
    many = Shows(SHOWN)
    assert len(states(many, [f"n{number}" for number in range(50)])) == 50
    assert len(many.commands) == 1
    none = Shows(SHOWN)
    assert states(none, []) == {} and none.commands == []
