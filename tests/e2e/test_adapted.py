"""A copy of the real LAVA's database beside its own, made ready to take its place."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.machines import CLONE, Admin, Machine
from tests.e2e.test_jobs import LIMIT, Jobs, lasting
from tests.e2e.test_quickstart import NAME

pytestmark = pytest.mark.e2e
OWN, BESIDE = f"lava-{NAME}", f"lava-{NAME}_beside"
INSTANCE = f"/srv/lava/instances/{NAME}"
JOB, DEVICE = "lava_scheduler_app_testjob", "lava_scheduler_app_device"
COPY = f"""cd /
createdb --owner {OWN} {BESIDE}
pg_dump --no-owner --no-privileges {OWN} |
psql -q -v ON_ERROR_STOP=1 -c 'SET ROLE "{OWN}"' -f - {BESIDE}
"""
ASK = f"""
import json, sys
from lava_deploy.model import Host
from lava_deploy.parts import console, release
from lava_deploy.system import System
instance = Host().instance("{NAME}")
current = release.of(System(), instance, instance.current.resolve().name)
actions = json.load(sys.stdin)
print(json.dumps(console.ask(System(), instance, current, actions, "{BESIDE}")))
"""
# LAVA's own end of a job, with a listener for what it then calls; nothing stays in the database.
END_AND_LISTEN = """
import http.server, threading
import django
django.setup()
from django.db import transaction
from lava_scheduler_app.models import TestJob
heard = []
class Listener(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        heard.append(self.path)
        self.send_response(200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
threading.Thread(target=server.serve_forever, daemon=True).start()
with transaction.atomic():
    number, address = NUMBER, f"http://127.0.0.1:{server.server_port}/told"
    job = TestJob.objects.get(pk=number)
    definition = job.definition.replace("http://127.0.0.1:9/", address)
    TestJob.objects.filter(pk=number).update(definition=definition, state=TestJob.STATE_RUNNING)
    job = TestJob.objects.get(pk=number)
    job.go_state_finished(TestJob.HEALTH_INCOMPLETE)
    job.save()
    transaction.set_rollback(True)
print(heard)
"""


@dataclass(frozen=True)
class Database:
    """The copy, which was made while a job ran."""

    machine: Machine
    running: int

    def ask(self, name: str, *each: dict) -> list:
        """The answers of an action that is carried out with each arguments, by console.ask."""
        said = self.machine.run(
            ["sh", "-c", f'cd {CLONE} && .venv/bin/python -c "$1"', "sh", ASK],
            input=json.dumps([{"action": name, **arguments} for arguments in each]),
        )
        return json.loads(said.stdout)

    def rows(self, query: str, name: str = BESIDE) -> list[str]:
        ask = ["runuser", "-u", "postgres", "--", "psql", "-XAtc", query, name]
        return self.machine.run(ask).stdout.splitlines()

    def heard_at_the_end_of_the_job(self, **environment: str) -> str:
        """What LAVA calls when it ends the job in a database."""
        code = END_AND_LISTEN.replace("NUMBER", str(self.running))
        ours = {
            "PYTHONPATH": f"{INSTANCE}/etc/site",
            "LAVA_SITE_ETC": f"{INSTANCE}/etc",
            "DJANGO_SETTINGS_MODULE": "lava_site.settings",
            **environment,
        }
        variables = [f"{name}={value}" for name, value in ours.items()]
        python = f"{INSTANCE}/code/current/venv/bin/python"
        as_lava = ["runuser", "-u", OWN, "--", "env", *variables, python, "-P", "-c", code]
        return self.machine.run(as_lava).stdout.strip()


@pytest.fixture(scope="module")
def database(machine: Machine) -> Iterator[Database]:
    jobs = Jobs(Admin(machine), NAME)
    definition = lasting(jobs.smoke_definition(), LIMIT)
    told = {"criteria": {"status": "finished"}, "callbacks": [{"url": "http://127.0.0.1:9/"}]}
    number = jobs.submit({**definition, "notify": told})
    jobs.wait(number, "Running")
    machine.run(["runuser", "-u", "postgres", "--", "sh", "-ec", COPY])
    yield Database(machine, int(number))
    machine.run(["runuser", "-u", "postgres", "--", "sh", "-c", f"cd /; dropdb {BESIDE}"])
    jobs.cancel(number)
    jobs.wait(number, "Finished")


def test_a_copy_differs_in_no_migration(database: Database) -> None:
    assert database.ask("migrations", {}) == [{"unknown": [], "missing": [], "too_old": []}]


def test_nobody_is_told_of_what_happens_in_the_copy(database: Database) -> None:
    assert database.heard_at_the_end_of_the_job() == "['/told']"
    assert database.heard_at_the_end_of_the_job(LAVA_SITE_DATABASE=BESIDE) == "[]"


def test_running_jobs_end_and_their_devices_are_as_healthy_as_before(database: Database) -> None:
    healths = database.rows(f"SELECT hostname, health FROM {DEVICE}")
    database.rows(f"UPDATE {JOB} SET health_check = true WHERE id = {database.running}")
    ended = database.ask("end_running_jobs", {"reason": "lost"}, {"reason": "again"})
    assert ended == [[database.running], []]
    state = f"SELECT state, health, failure_comment FROM {JOB} WHERE id = {database.running}"
    assert database.rows(state) == ["5|2|lost"]
    assert database.rows(state, OWN) == ["3|0|"]
    assert database.rows(f"SELECT count(*) FROM {DEVICE} WHERE state != 0") == ["0"]
    assert database.rows(f"SELECT hostname, health FROM {DEVICE}") == healths


def test_devices_rest_except_those_that_are_named(database: Database) -> None:
    names = database.rows(f"SELECT hostname FROM {DEVICE} WHERE health NOT IN (4, 5) ORDER BY 1")
    assert names
    noted = {"note": "restored"}
    rested = database.ask("devices_to_maintenance", {**noted, "but": names}, noted, noted)
    assert rested == [[], names, []]


def test_paths_of_media_files_are_those_of_another_directory(database: Database) -> None:
    paths = "SELECT count(*) FROM lava_results_app_testcase WHERE metadata LIKE '%extra: {}/job-%'"
    [before] = database.rows(paths.format(f"{INSTANCE}/var/lib/lava-server/media"))
    assert int(before) > 0
    elsewhere = {"media": "/srv/elsewhere/media/"}
    assert database.ask("move_media", elsewhere, elsewhere) == [int(before), 0]
    assert database.rows(paths.format("/srv/elsewhere/media")) == [before]


def test_another_worker_takes_the_devices_over_and_no_job_is_lost(database: Database) -> None:
    hosts = f"SELECT DISTINCT worker_host_id FROM {DEVICE}"
    jobs = database.rows(f"SELECT count(*) FROM {JOB}")
    [former] = database.rows(hosts)
    database.rows(f"UPDATE {JOB} SET requested_worker_id = '{former}'")
    taken_over = {"former": former, "name": "taker", "token": "t" * 32}
    database.ask("take_over_worker", taken_over, taken_over)
    assert database.rows(hosts) == ["taker"]
    assert database.rows("SELECT hostname FROM lava_scheduler_app_worker") == ["taker"]
    assert database.rows(f"SELECT count(*) FROM {JOB}") == jobs
