"""Logs: the times that can be asked for, the lines of services and jobs, and their order."""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from lava_deploy.cli.logs import moment
from lava_deploy.errors import CommandFailed
from lava_deploy.model import JOB, JOURNAL, SAID, Host, Log, Service
from lava_deploy.parts import logs, supervisor, systemd
from lava_deploy.parts.logs import Selection
from lava_deploy.system import System
from lava_deploy.web import Web

NOW = datetime(2026, 11, 25, 12, 30, 15, tzinfo=UTC)
BERLIN = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose zone is not LAVA's."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Written:
    """A system whose commands write these lines; None is a while without any."""

    def __init__(self, **outputs: Iterable[str | None]) -> None:
        self.outputs = outputs

    def lines(self, command: Sequence[str], patience: float | None = None) -> Iterator[str | None]:
        yield from (line for line in self.outputs[command[0]] if line or patience is not None)


def log(component: str, form: str = SAID) -> Log:
    return Log(component, form, ((component,),))


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-25 {clock}Z")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30s", NOW - timedelta(seconds=30)),
        ("10m", NOW - timedelta(minutes=10)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC) - BERLIN),
        ("2026-07-20", datetime(2026, 7, 20, tzinfo=UTC) - 2 * BERLIN),
        ("2026-11-20 14:00", datetime(2026, 11, 20, 14, tzinfo=UTC) - BERLIN),
        ("2026-11-20 14:00:05", datetime(2026, 11, 20, 14, 0, 5, tzinfo=UTC) - BERLIN),
        ("14:00", datetime(2026, 11, 25, 14, tzinfo=UTC) - BERLIN),
        ("14:00:05", datetime(2026, 11, 25, 14, 0, 5, tzinfo=UTC) - BERLIN),
    ],
)
def test_a_time_is_a_duration_back_or_a_local_time(text: str, meant: datetime) -> None:
    assert moment(text, NOW) == meant


@pytest.mark.parametrize(
    "text", ["", "10", "10x", "-1h", "999999999d", "1e3s", "25:00", "2026-13-01", "yesterday", "٣d"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    assert moment(text, NOW) is None


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("2026-11-25 10:00:00,123    INFO done", "11:00:00 web        INFO done"),
        ("2026-11-25 10:00:00+0000,123   DEBUG - qemu", "11:00:00 web        DEBUG - qemu"),
        (
            "[2026-11-25 10:00:00 +0000] [7] [INFO] Booting",
            "11:00:00 web        [7] [INFO] Booting",
        ),
        ("ERROR 2026-11-25 10:00:00+0000,123 log Oops", "11:00:00 web        ERROR log Oops"),
        ("2026-11-25 11:00:00+0100    INFO \x1b[1mx", "11:00:00 web        INFO [1mx"),
    ],
)
def test_the_time_of_a_line_is_shown_once_in_the_zone_of_the_machine(said: str, shown: str) -> None:
    [line] = logs.read(Written(web=[said]), [log("web")], Selection())
    assert str(line) == f"2026-11-25 {shown}"


def test_lines_of_all_components_come_in_the_order_of_time_and_tracebacks_stay_whole() -> None:
    web = [
        "early",
        "[2026-11-25 10:00:02 +0000] [7] [ERROR] Oops",
        "Traceback:",
        "  File",
        "[2026-11-25 10:00:05 +0000] [7] [INFO] On",
    ]
    scheduler = [
        "2026-11-25 10:00:02+0000,900    INFO done",
        "2026-11-25 10:00:03+0000,0    INFO x",
    ]
    read = logs.read(
        Written(web=web, scheduler=scheduler), [log("scheduler"), log("web")], Selection()
    )
    assert [(line.component, line.text) for line in read] == [
        ("web", "early"),
        ("web", "[7] [ERROR] Oops"),
        ("web", "Traceback:"),
        ("web", "  File"),
        ("scheduler", "INFO done"),
        ("scheduler", "INFO x"),
        ("web", "[7] [INFO] On"),
    ]


def test_only_the_last_lines_since_a_time_are_shown() -> None:
    said = [f"2026-11-25 10:00:0{second},000    INFO {second}" for second in range(9)]
    since = Selection(since=at("10:00:06"))
    assert [line.text for line in logs.read(Written(web=said), [log("web")], since)] == [
        "INFO 6",
        "INFO 7",
        "INFO 8",
    ]
    last = Selection(since=at("10:00:06"), lines=1)
    assert [line.text for line in logs.read(Written(web=said), [log("web")], last)] == ["INFO 8"]


def test_the_lines_of_a_job_are_those_that_name_it_and_its_own() -> None:
    dispatcher = [
        "2026-11-25 10:00:00,0    INFO [12] Starting job",
        "2026-11-25 10:00:01,0   ERROR [2] Unable",
        "Traceback:",
        "2026-11-25 10:00:03,0    INFO [1] done",
    ]
    web = [
        "[2026-11-25 10:00:00 +0000] [2] [INFO] Booting worker with pid: 2",
        "ERROR 2026-11-25 10:00:02+0000,5 log Server Error: /scheduler/internal/v1/jobs/2/logs/",
        "ERROR 2026-11-25 10:00:02+0000,5 log Server Error: /scheduler/job/21",
    ]
    job = [
        '- {"dt": "2026-11-25T10:00:00.5", "lvl": "info", "msg": "start: 0 validate"}',
        '- {"dt": "2026-11-25T10:00:02.6+00:00", "lvl": "results", "msg": {"n": !!int "1"}}',
    ]
    system = Written(dispatcher=dispatcher, web=web, job=job)
    sources = [log("dispatcher"), log("web"), log(JOB, JOB)]
    assert [line.text for line in logs.read(system, sources, Selection(job=2))] == [
        "info     start: 0 validate",
        "ERROR [2] Unable",
        "Traceback:",
        "ERROR log Server Error: /scheduler/internal/v1/jobs/2/logs/",
        "results  n: 1",
    ]


def test_a_line_of_a_job_that_is_not_whole_is_shown_as_it_is() -> None:
    system = Written(
        job=['- {"dt": "2026-11-25T10:00:00", "lvl": "info", "msg": "a"}', '- {"dt": "2']
    )
    read = logs.read(system, [log(JOB, JOB)], Selection(job=1))
    assert [line.text for line in read] == ["info     a", '- {"dt": "2']


def test_the_journal_tells_times_itself_and_bytes_where_there_is_no_text() -> None:
    entries = [
        {"MESSAGE": "Started web.", "SYSLOG_IDENTIFIER": "systemd"},
        {"MESSAGE": "2026-11-25 10:00:00,123    INFO done", "SYSLOG_IDENTIFIER": "lava-demo-web-a"},
        {"MESSAGE": [255, 104, 105]},
        {"MESSAGE": None},
    ]
    stamp = {"__REALTIME_TIMESTAMP": str(int(NOW.timestamp() * 1e6))}
    system = Written(web=[json.dumps({**stamp, **entry}) for entry in entries])
    read = list(logs.read(system, [log("web", JOURNAL)], Selection()))
    assert {line.time for line in read} == {NOW}
    assert [line.text for line in read] == ["Started web.", "INFO done", "�hi", ""]
    assert [line.begins for line in read] == [True, True, False, False]


def test_following_shows_what_is_there_then_what_comes_until_all_is_over() -> None:
    web = ["2020-11-25 10:00:01,0 INFO a", "2020-11-25 10:00:03,0 INFO c", None]
    scheduler = ["2020-11-25 10:00:02,0 INFO b", None, "2020-11-25 10:00:04,0 INFO d", None]
    rounds = iter([False, True])
    read = logs.follow(
        Written(web=web, scheduler=scheduler),
        [log("web"), log("scheduler")],
        Selection(lines=2),
        lambda: next(rounds),
    )
    assert [line.text for line in read] == ["INFO b", "INFO c", "INFO d"]


def test_a_component_that_never_pauses_does_not_keep_back_the_others() -> None:
    web = itertools.repeat("2199-11-25 10:00:01,0 INFO again")
    scheduler = ["2020-11-25 10:00:02,0 INFO b", None, "2020-11-25 10:00:04,0 INFO d", None]
    system = Written(web=web, scheduler=scheduler)
    rounds = iter([True])
    read = logs.follow(system, [log("web"), log("scheduler")], Selection(), lambda: next(rounds))
    assert [line.text for line in read] == ["INFO b", "INFO again", "INFO d", "INFO again"]


def test_what_only_looks_like_a_time_is_text() -> None:
    [line] = logs.read(Written(web=["2026-13-25 10:00:00 x"]), [log("web")], Selection())
    assert (line.text, line.begins) == ("2026-13-25 10:00:00 x", False)
    assert str(line).startswith(" " * 20 + "web ")


def test_rotated_files_come_first_the_oldest_of_all_foremost() -> None:
    demo = Host().instance("demo")
    web = Service("web", "web-a", demo.user)

    class Files:
        def run(self, command, check=True):
            names = "web-a.log.1 web-a.log web-a.log.10 web-a.log.2 web-b.log web-a.log.gz"
            return type("Finished", (), {"stdout": names})

    [found] = supervisor.Supervisord(Files(), Web(), Host()).logs(demo, [web], lines=5, follow=True)
    assert [command[-1].rpartition("/")[2] for command in found.commands] == [
        "web-a.log.10",
        "web-a.log.2",
        "web-a.log.1",
        "web-a.log",
    ]
    assert ["--retry" in command for command in found.commands] == [False, False, False, True]


def test_the_journal_is_asked_for_one_service_at_a_time() -> None:
    demo = Host().instance("demo")
    web = Service("web", "web-a", demo.user)
    [found] = systemd.Systemd(System(), Host()).logs(demo, [web], since=NOW)
    assert f"--since=@{NOW.timestamp():.6f}" in found.commands[0]
    assert found.commands[0][-1] == "--unit=lava-deploy-web-a@demo.service"


def test_the_lines_of_a_command_come_one_by_one_and_it_ends_when_nobody_reads_on() -> None:
    lines = System({}).lines(["sh", "-c", "echo a; printf b; exec sleep 60"], patience=0.5)
    begun = time.monotonic()
    assert next(lines) == "a"
    assert next(lines) is None
    lines.close()
    assert time.monotonic() - begun < 30


def test_a_command_whose_lines_are_read_tells_of_its_failure() -> None:
    lines = System({}).lines(["sh", "-c", "printf a; exit 3"])
    assert next(lines) == "a"
    with pytest.raises(CommandFailed) as failed:
        next(lines)
    assert failed.value.status == 3
