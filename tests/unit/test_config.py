"""What an admin may write into instance.yaml."""

import pytest

from lava_deploy import config


def test_mail_addresses_may_come_with_names():
    said = config.read("mail: {sender: LAVA <lava@example.com>, admins: [Ann <ann@example.com>]}")
    assert said.mail.admins == ("Ann <ann@example.com>",)


def test_what_is_no_mail_address_is_a_fault():
    _, faults = config.examine({"mail": {"admins": ["Ann", "ann@example.com"]}})
    assert faults == ["mail: 'Ann' is no mail address"]


@pytest.mark.parametrize("memory", ["", "256M", "4G", "1T"])
def test_memory_is_limited_by_a_size(memory):
    said, faults = config.examine({"limits": {"memory": memory, "cpu_weight": 1, "tasks": 64}})
    assert (said.limits.memory, faults) == (memory, [])


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ({"memory": "0"}, "limits.memory: should be a size such as 512M or 4G, not '0'"),
        ({"memory": "1.5G"}, "limits.memory: should be a size such as 512M or 4G, not '1.5G'"),
        ({"memory": "4GB"}, "limits.memory: should be a size such as 512M or 4G, not '4GB'"),
        (
            {"memory": "4G\nX=1"},
            "limits.memory: should be a size such as 512M or 4G, not '4G\\nX=1'",
        ),
        ({"memory": 4096}, "limits.memory: should be text, not 4096"),
        ({"memory": "64M"}, "limits.memory: should be at least 256M, not 64M"),
        ({"cpu_weight": -1}, "limits.cpu_weight: should be from 0 to 10000, not -1"),
        ({"tasks": 3}, "limits.tasks: should be 0, or from 64 to 4194304, not 3"),
        ({"tasks": True}, "limits.tasks: should be a whole number, not True"),
        ({"cpu": 1}, "limits.cpu: there is no such setting: memory, cpu_weight, tasks are known"),
    ],
)
def test_limits_under_which_nothing_could_run_are_faults(limits, fault):
    assert config.examine({"limits": limits}) == (config.Configuration(), [fault])
