"""What an admin may write into instance.yaml."""

from lava_deploy import config


def test_mail_addresses_may_come_with_names():
    said = config.read("mail: {sender: LAVA <lava@example.com>, admins: [Ann <ann@example.com>]}")
    assert said.mail.admins == ("Ann <ann@example.com>",)


def test_what_is_no_mail_address_is_a_fault():
    _, faults = config.examine({"mail": {"admins": ["Ann", "ann@example.com"]}})
    assert faults == ["mail: 'Ann' is no mail address"]
