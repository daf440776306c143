import pytest

from lava_deploy.playbook import _ansible_environment, _Events


def taken(*events):
    begun: list[str] = []
    collected = _Events(begun.append)
    for kind, details in events:
        collected.take({"event": kind, "event_data": details})
    return collected, begun


def test_each_task_is_told_as_it_begins():
    _, begun = taken(("playbook_on_task_start", {"task": "Install the packages"}))
    assert begun == ["Install the packages"]


@pytest.mark.parametrize(
    ("result", "changed"),
    [
        ({"changed": True}, ["Install the packages"]),
        ({"changed": True, "changes": ["made /srv/lava"]}, ["made /srv/lava"]),
        ({"changed": False, "changes": []}, []),
    ],
    ids=["a task of Ansible", "a task that says more", "nothing to do"],
)
def test_only_what_changed_is_kept(result, changed):
    events, _ = taken(("runner_on_ok", {"task": "Install the packages", "res": result}))
    assert events.changed == changed


@pytest.mark.parametrize(
    ("kind", "result", "said"),
    [
        ("runner_on_failed", {"msg": "failed", "stderr": "E: no space\n"}, "E: no space"),
        ("runner_on_failed", {"msg": "failed", "stderr": ""}, "failed"),
        ("runner_on_unreachable", {"msg": "timed out"}, "timed out"),
    ],
)
def test_a_failure_has_the_words_of_the_program_that_failed(kind, result, said):
    events, _ = taken((kind, {"task": "Install", "res": result}))
    assert events.failures == [f"Install: {said}"]


def test_a_failure_that_the_playbook_expects_is_none():
    events, _ = taken(("runner_on_failed", {"task": "Try", "ignore_errors": True, "res": {}}))
    assert events.failures == []


def test_ansible_hears_of_proxies_but_not_of_the_admins_own_settings(tmp_path):
    admin = {"http_proxy": "http://proxy:3128", "ANSIBLE_STRATEGY": "free", "PATH": "/usr/bin"}
    environment = _ansible_environment(admin, tmp_path)
    assert environment["http_proxy"] == "http://proxy:3128"
    assert "ANSIBLE_STRATEGY" not in environment
    assert environment["PATH"].endswith(":/usr/bin")
