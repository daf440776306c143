"""What admins do every day, on the instance that quickstart made."""

import time

import pytest

from tests.e2e.machines import Admin, Machine
from tests.e2e.test_quickstart import NAME
from tests.hosts.waiting import until

pytestmark = pytest.mark.e2e
COMPONENTS = ["web", "publisher", "scheduler", "dispatcher"]
# What the first process of a component of an instance is called, as pgrep(1) finds it.
PROCESSES = {
    "web": r"gunicorn: master \[{} ",
    "publisher": "/instances/{}/.*lava_site.publisher",
    "scheduler": "/instances/{}/.*lava-scheduler",
    "dispatcher": "/instances/{}/.*lava-worker",
}
YAML = f"/srv/lava/instances/{NAME}/instance.yaml"
LIMIT = 60


def components(admin: Admin) -> dict[str, bool]:
    """Which components run."""
    [about] = admin.json("list")["instances"]
    return {name: state["running"] for name, state in about["components"].items()}


def process(machine: Machine, name: str, component: str) -> str:
    """The number of a component's first process, '' if there is none."""
    pattern = PROCESSES[component].format(name)
    return machine.run(["pgrep", "-o", "-f", pattern], check=False).stdout.strip()


def has_systemd(machine: Machine) -> bool:
    return machine.run(["test", "-d", "/run/systemd/system"], check=False).status == 0


def answers(admin: Admin, name: str = NAME) -> bool:
    """Whether all of an instance runs and its page answers."""
    line = admin.line("status", name)
    return admin.machine.run(line, check=False).status == 0


def wait_for_answers(admin: Admin, name: str = NAME) -> None:
    until(lambda: answers(admin, name), LIMIT, lambda: TimeoutError(f"{name} does not answer"))


def test_list_tells_what_is_there(admin: Admin) -> None:
    [about] = admin.json("list")["instances"]
    assert (about["name"], about["url"]) == (NAME, f"http://{NAME}.localhost/")
    assert about["smoke"]["health"] == "Complete"
    assert NAME in admin("list").stdout


def test_status_tells_what_runs_answers_and_how_large_it_is(admin: Admin) -> None:
    [about] = admin.json("status", NAME, "--sizes")["instances"]
    assert {name: state["running"] for name, state in about["components"].items()} == dict.fromkeys(
        COMPONENTS, True
    )
    assert about["answers"] == 200
    assert about["sizes"]["code"] > 50_000_000 and about["sizes"]["database"] > 5_000_000


def test_show_names_every_place(admin: Admin) -> None:
    about = admin.json("show", NAME)["instance"]
    assert about["user"] == f"lava-{NAME}"
    for path in (about["configuration"], about["release"], about["media"], about["logs"]):
        admin.machine.run(["test", "-e", path])


def test_revisions_have_the_one_that_was_installed(admin: Admin) -> None:
    installed = admin.json("show", NAME)["instance"]["version"]
    offered = {one["version"]: one for one in admin.json("revisions")["revisions"]}
    assert offered[installed]["runs_here"]


def test_history_tells_what_was_done(admin: Admin) -> None:
    entries = admin.json("history", NAME)["history"]
    assert ("lava-deploy quickstart", "done") in [
        (" ".join(entry["command"].split()[:2]), entry["outcome"]) for entry in entries
    ]


@pytest.mark.parametrize("component", COMPONENTS)
def test_one_component_stops_and_starts_and_the_others_do_not_notice(
    admin: Admin, component: str
) -> None:
    admin("stop", NAME, component)
    assert components(admin) == {name: name != component for name in COMPONENTS}
    admin("status", NAME, status=6)
    admin("start", NAME, component)
    assert all(components(admin).values())


def test_all_of_it_stops_starts_and_restarts(admin: Admin) -> None:
    admin("stop", NAME)
    assert not any(components(admin).values())
    admin("start", NAME)
    admin("restart", NAME)
    assert all(components(admin).values())
    wait_for_answers(admin)


def test_logs_are_of_a_component_or_of_all_and_can_be_followed(admin: Admin) -> None:
    assert "INFO" in admin("logs", NAME, "dispatcher").stdout
    assert "gunicorn" in admin("logs", NAME, "web", "--lines", "1000").stdout.lower()
    with admin.machine.popen(["timeout", "60", *admin.line("logs", NAME, "-f")]) as followed:
        assert followed.stdout.readline()
        admin("restart", NAME, "scheduler")
        begun = time.monotonic()
        while "scheduler" not in followed.stdout.readline().lower():
            assert time.monotonic() - begun < LIMIT
        admin.machine.run(["pkill", "-f", f"lava-deploy logs {NAME} -f"])
        followed.stdout.read()


def test_logs_since_a_time_have_what_was_said_since(admin: Admin) -> None:
    admin("restart", NAME, "scheduler")
    wait_for_answers(admin)
    said = admin("logs", NAME, "--since", "1m").stdout
    assert " scheduler  INFO [INIT] Starting lava-scheduler" in said
    times = [line[:19] for line in said.splitlines()]
    assert times == sorted(times)
    assert admin("logs", NAME, "--since", "2199-01-01").stdout == ""
    assert "2026-11-25 14:00" in admin("logs", NAME, "--since", "soon", status=2).stderr


def test_logs_of_a_job_are_of_the_scheduler_the_dispatcher_and_its_own(admin: Admin) -> None:
    said = admin("logs", NAME, "--job", "1").stdout
    components = [line[20:].split()[0] for line in said.splitlines()]
    assert {"scheduler", "dispatcher", "job"} <= set(components)
    assert "[1] Starting job" in said and "Linux version" in said
    assert admin("logs", NAME, "--job", "1", "--follow").stdout == said
    only = admin("logs", NAME, "dispatcher", "--job", "1").stdout.splitlines()
    assert {line[20:].split()[0] for line in only} == {"dispatcher"}
    assert "has no job 987654" in admin("logs", NAME, "--job", "987654", status=2).stderr


def test_the_log_of_a_job_is_read_when_it_is_compressed(admin: Admin) -> None:
    before = admin("logs", NAME, "--job", "1").stdout
    admin("manage", NAME, "jobs", "compress", "--submitter", "lava-deploy")
    jobs = f"/srv/lava/instances/{NAME}/var/lib/lava-server/media/job-output"
    assert admin.machine.run(
        f"find {jobs} -path '*/1/output.yaml*' -printf '%f %u\\n' | sort"
    ).stdout == (f"output.yaml.size lava-{NAME}\noutput.yaml.xz lava-{NAME}\n")
    assert admin("logs", NAME, "--job", "1").stdout == before


def test_a_rotated_log_is_still_read_and_followed(admin: Admin) -> None:
    """The journal rotates by itself; files do when more than 10 MB were said."""
    machine = admin.machine
    log = f"/srv/lava/instances/{NAME}/var/log/scheduler.log"
    if machine.run(["test", "-e", log], check=False).status != 0:
        return
    says = f">/proc/{process(machine, NAME, 'scheduler')}/fd/2"
    now = "$(date -u +'%Y-%m-%d %H:%M:%S,000') INFO"
    follow = admin.line("logs", NAME, "scheduler", "-f", "--lines", "1")
    with machine.popen(["timeout", str(LIMIT), *follow]) as followed:
        assert followed.stdout.readline()
        machine.run(f'echo "{now} before" {says}')
        machine.run(f"yes $(printf %01000d 0) | head -c 11000000 {says}")
        until(
            lambda: machine.run(["test", "-e", f"{log}.1"], check=False).status == 0,
            LIMIT,
            lambda: TimeoutError(f"{log} is not rotated"),
        )
        machine.run(f'echo "{now} after" {says}')
        lines = iter(followed.stdout.readline, "")
        assert any(line.endswith("INFO before\n") for line in lines)
        assert any(line.endswith("INFO after\n") for line in lines)
        machine.run(["pkill", "-f", f"lava-deploy logs {NAME} scheduler -f"])
        followed.stdout.read()
    said = admin("logs", NAME, "scheduler", "--since", "5m").stdout
    assert "INFO before\n" in said and "INFO after\n" in said


def test_a_management_command_gets_the_input_and_gives_its_status(admin: Admin) -> None:
    assert "42" in admin("manage", NAME, "shell", input="print(6 * 7)").stdout
    admin("manage", NAME, "no-such-command", status=1)
    admin("manage", NAME, "shell", "-c", "raise SystemExit(3)", status=3)


def test_a_changed_instance_yaml_is_shown_then_applied_then_nothing_is_left_to_do(
    admin: Admin,
) -> None:
    admin.machine.run(["sed", "-i", "s/^  workers: .*/  workers: 3/", YAML])
    assert "workers: 3" in admin("apply", NAME, "--dry-run").stdout
    admin("apply", NAME)
    wait_for_answers(admin)
    master = process(admin.machine, NAME, "web")
    assert len(admin.machine.run(["pgrep", "-P", master]).stdout.split()) == 3
    assert "already is" in admin("apply", NAME).stderr


def set_limits(machine: Machine, memory: str, tasks: int) -> None:
    machine.run(
        [
            "sed",
            "-i",
            f"s/^  memory: .*/  memory: {memory}/; s/^  tasks: .*/  tasks: {tasks}/",
            YAML,
        ]
    )


def limits(machine: Machine) -> set[str]:
    """The limits of the slice that a service runs in: systemd's, and the kernel's.

    The kernel has none where its controllers are in the older hierarchy, as on some test machines.
    """
    properties = "systemctl show --value --property"
    slice_ = machine.run(f"{properties} Slice lava-deploy-scheduler@{NAME}.service").stdout.strip()
    ours = machine.run(["systemctl", "show", "--property=ControlGroup,MemoryMax,TasksMax", slice_])
    found = dict(line.split("=", 1) for line in ours.stdout.splitlines())
    for name, file in (("MemoryMax", "memory.max"), ("TasksMax", "pids.max")):
        path = f"/sys/fs/cgroup{found['ControlGroup']}/{file}"
        kernels = machine.run(["cat", path], check=False).stdout.strip()
        assert kernels.replace("max", "infinity") in ("", found[name])
    return {f"{name}={found[name]}" for name in ("MemoryMax", "TasksMax")}


def test_limits_are_in_force_without_a_restart_and_are_taken_away_again(
    admin: Admin, machine: Machine
) -> None:
    if not has_systemd(machine):
        return
    before = [process(machine, NAME, component) for component in COMPONENTS]
    set_limits(machine, "4G", 2000)
    assert "+ limits.memory: 4G" in admin("apply", NAME, "--dry-run").stdout
    assert limits(machine) == {"MemoryMax=infinity", "TasksMax=infinity"}
    admin("apply", NAME)
    assert limits(machine) == {f"MemoryMax={4 * 1024**3}", "TasksMax=2000"}
    set_limits(machine, '""', 0)
    admin("apply", NAME)
    assert limits(machine) == {"MemoryMax=infinity", "TasksMax=infinity"}
    assert [process(machine, NAME, component) for component in COMPONENTS] == before


def test_limits_that_nothing_can_keep_are_refused(admin: Admin, machine: Machine) -> None:
    if has_systemd(machine):
        return
    ordered = admin("install", "limited", "-n", "--yes", "--set", "limits.memory=1G", status=4)
    set_limits(machine, "1G", 0)
    applied = admin("apply", NAME, status=4)
    set_limits(machine, '""', 0)
    for refused in (ordered, applied):
        assert "limits: only systemd can keep them" in refused.stderr
    machine.run("! test -e /srv/lava/instances/limited")
    assert answers(admin)


def test_a_fault_in_instance_yaml_is_named_with_its_place_and_nothing_changes(admin: Admin) -> None:
    text = admin.machine.run(["cat", YAML]).stdout
    admin.machine.run(["sed", "-i", "s/^  workers: .*/  workers: many/", YAML])
    refused = admin("apply", NAME, status=3)
    admin.machine.run(f"cat >{YAML}", input=text)
    assert "web.workers: should be a whole number, not 'many'" in refused.stderr
    assert answers(admin)


def test_smoke_runs_a_real_job_again(admin: Admin) -> None:
    before = admin.json("show", NAME)["instance"]["smoke"]["job"]
    job = admin.json("smoke", NAME)["job"]
    assert job["health"] == "Complete" and job["job"] > before


@pytest.mark.parametrize("component", COMPONENTS)
def test_systemd_itself_finds_the_services_well_protected(
    admin: Admin, machine: Machine, component: str
) -> None:
    """In tenths of its points; what the dispatcher is not denied is told in its unit, with why."""
    if not has_systemd(machine):
        return
    unit = f"lava-deploy-{'web-a' if component == 'web' else component}@{NAME}.service"
    limit = 80 if component == "dispatcher" else 30
    machine.run(["systemd-analyze", "security", "--no-pager", f"--threshold={limit}", unit])
