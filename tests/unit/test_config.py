"""What an admin may write into instance.yaml."""

import pytest
import yaml

from lava_deploy import config
from lava_deploy.configuration import Route
from lava_deploy.errors import ConfigurationError


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


INSTANCE_YAML = """\
# ours
route:
  # how
  kind: vhost   # or location
  hostname: "demo.example.org"

mail:
  admins: [ann@example.org,
           bob@example.org]
"""


def test_a_command_changes_values_and_leaves_all_else_of_the_file():
    changes = {"route.kind": "location", "route.hostname": "lab.example.org"}
    changed = config.rewrite(INSTANCE_YAML, changes)
    assert changed == INSTANCE_YAML.replace("vhost ", "location ").replace("demo", "lab")
    back = {"route.kind": "vhost", "route.hostname": "demo.example.org"}
    assert config.rewrite(changed, back) == INSTANCE_YAML


def test_what_is_not_in_the_file_yet_is_added_to_its_section():
    changed = config.rewrite(INSTANCE_YAML, {"route.prefix": "/demo"})
    assert config.read(changed).route == Route("vhost", "demo.example.org", "/demo")
    assert changed.replace('  prefix: "/demo"\n', "") == INSTANCE_YAML


def test_a_value_that_needs_quotes_gets_them():
    for kind in ("a: b", "no", "null"):
        changed = config.rewrite(INSTANCE_YAML, {"route.kind": kind, "route.hostname": 'c"d'})
        assert yaml.safe_load(changed)["route"] == {"kind": kind, "hostname": 'c"d'}


@pytest.mark.parametrize("text", ["", "mail: {}", "route: {kind: vhost}", "route:", "- a", "a: ["])
def test_a_file_without_that_section_is_left_to_its_admin(text):
    with pytest.raises(ConfigurationError, match="no section route"):
        config.rewrite(text, {"route.kind": "location"})


def test_what_is_no_text_stays_what_it_is():
    changed = config.rewrite(INSTANCE_YAML, {"route.redirect": True, "route.hsts": 300})
    route = config.read(changed).route
    assert (route.redirect, route.hsts) == (True, 300)
    assert config.read(config.rewrite(changed, {"route.redirect": False})).route.redirect is False


def test_only_certificates_that_there_can_be_are_taken():
    _, faults = config.examine({"route": {"certificate": "lets-encrypt", "hsts": -1}})
    assert faults == [
        "route.certificate: should be one of none, self-signed, own, not 'lets-encrypt'",
        "route.hsts: should be from 0 to 1000000000, not -1",
    ]
