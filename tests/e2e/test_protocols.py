"""All that people and programs say to a LAVA, through each kind of route.

One job for each kind is watched by everything that can watch a job; the tests look at what each
of them has seen.
"""

import email
import email.policy
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
import yaml

from tests.e2e.machines import CLONE, Admin, Machine
from tests.e2e.test_jobs import lasting
from tests.e2e.ways import (
    LOCATION,
    SECURED,
    VHOST,
    WAYS,
    Answer,
    Session,
    Way,
    ask_lavacli,
    client_of,
    install_location,
    secret,
)
from tests.hosts.waiting import until

pytestmark = pytest.mark.e2e
MAIL_PORT, MAILS = 2525, "/tmp/mails"
EVENT_PORTS = {VHOST.name: 5500, LOCATION.name: 5501}
RECIPIENT = "someone@example.com"
LIMIT = 60
SECOND = Way("location", "two", "http", "localhost/two")
# Just below the 2.5 MB from which Django itself refuses a body, DATA_UPLOAD_MAX_MEMORY_SIZE.
LARGE = 2_000_000
# argv: the address of a publisher. Prints the topic and content of each event as a line of JSON.
SUBSCRIBER = """
import json, sys, zmq
events = zmq.Context().socket(zmq.SUB)
events.setsockopt(zmq.SUBSCRIBE, b"")
events.connect(sys.argv[1])
print(json.dumps(["subscribed", {}]))
while True:
    topic, _, _, _, content = events.recv_multipart()
    print(json.dumps([topic.decode(), json.loads(content)]), flush=True)
"""

# lavacli up to 3.1.0 compares the number in an event with the text of its argument, and waits for
# ever, whatever the route. Only that is mended here; the rest is its own.
WAIT_FOR_NUMBER = """
import sys, lavacli
from lavacli.commands import events
wait = events.handle_wait
def with_number(proxy, options, config):
    options.job_id = int(options.job_id)
    return wait(proxy, options, config)
events.handle_wait = with_number
sys.exit(lavacli.main())
"""


@dataclass(frozen=True)
class Watched:
    """What was seen of one job."""

    number: str
    waited: str
    waited_for_event: str
    listened: str
    subscribed: str


@contextmanager
def in_background(machine: Machine, command: Sequence[str], output: str) -> Iterator[str]:
    """A command that runs on a machine for a while; the file of its output."""
    begin = 'output=$1; shift; "$@" >"$output" 2>&1 </dev/null & echo $!'
    process = machine.run(["sh", "-c", begin, "sh", output, *command]).stdout.strip()
    try:
        yield output
    finally:
        machine.run(["kill", process], check=False)


def until_it_has(machine: Machine, path: str, text: str) -> None:
    until(
        lambda: machine.run(["grep", "-qF", text, path], check=False).status == 0,
        LIMIT,
        lambda: TimeoutError(f"no {text} in {machine.run(['cat', path]).stdout}"),
    )


def yaml_of(way: Way) -> str:
    return f"/srv/lava/instances/{way.name}/instance.yaml"


def configure(admin: Admin, way: Way, text: str) -> None:
    admin.machine.run(f"cat >{yaml_of(way)}", input=text)
    admin("apply", way.name)


def telling(text: str, port: int) -> str:
    """An instance.yaml with a mail server, and a socket for events on every address."""
    configuration = yaml.safe_load(text)
    configuration["mail"] |= {"server": "127.0.0.1", "port": MAIL_PORT}
    configuration["settings"] = {
        **(configuration["settings"] or {}),
        "EVENT_SOCKET": f"tcp://*:{port}",
    }
    return yaml.safe_dump(configuration)


def mail_about(machine: Machine, way: Way, number: str) -> str:
    """The text of the mail on a job; LAVA sends it in the request that ends the job."""
    find = f"grep -rlE '//{way.address}/scheduler/job/{number}\\b' {MAILS}"
    until(
        lambda: machine.run(find, check=False).stdout,
        LIMIT,
        lambda: TimeoutError(f"no mail: {machine.run(f'tail -n 50 {MAILS}/*').stdout}"),
    )
    [path] = machine.run(find).stdout.split()
    message = email.message_from_string(
        machine.run(["cat", path]).stdout, policy=email.policy.default
    )
    assert message["To"] == RECIPIENT
    return message.get_content()


def post_json(session: Session, url: str, token: str, **content: str) -> Answer:
    headers = {"Authorization": token, "Content-Type": "application/json"}
    return session.post(url, json.dumps(content).encode(), **headers)


def admin_token(machine: Machine, way: Way) -> str:
    """A token of the administrator's, as LAVA's REST gives one for a password."""
    who = {"username": "admin", "password": secret(machine, way, "admin-password")}
    url, body = f"{way.url}api/v0.2/token/", json.dumps(who).encode()
    answer = Session(machine).post(url, body, **{"Content-Type": "application/json"})
    return json.loads(answer.text)["token"]


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Iterator[Admin]:
    """Both instances tell the outside of what happens: by mail and by a socket for events."""
    admin = Admin(machine)
    install_location(admin, LOCATION)
    mailbox = ["python3", f"{CLONE}/tests/e2e/mailbox.py", str(MAIL_PORT), MAILS]
    before = {way: machine.run(["cat", yaml_of(way)]).stdout for way in WAYS}
    with in_background(machine, mailbox, "/tmp/mailbox"):
        for way in WAYS:
            configure(admin, way, telling(before[way], EVENT_PORTS[way.name]))
        yield admin
        configure(admin, VHOST, before[VHOST])
    admin("remove", LOCATION.name, "--yes")
    machine.run(["rm", "-rf", MAILS])


@pytest.fixture(scope="module")
def smoke(prepared: Admin) -> str:
    """The definition of a small job, as read before anything is served by https."""
    return ask_lavacli(prepared.machine, VHOST, "jobs", "definition", "1")


@pytest.fixture(
    scope="module", params=(*WAYS, SECURED[1]), ids=lambda way: f"{way.kind}-{way.scheme}"
)
def way(request: pytest.FixtureRequest, prepared: Admin, smoke: str) -> Iterator[Way]:
    way = request.param
    if way not in SECURED:
        yield way
    else:
        prepared("tls", "set", way.name, "--self-signed")
        yield way
        prepared("tls", "off", way.name)


@pytest.fixture(scope="module")
def watched(way: Way, machine: Machine, smoke: str) -> Watched:
    """A job that notifies by mail, watched to its end."""
    recipients = [{"to": {"method": "email", "email": RECIPIENT}}]
    notify = {"criteria": {"status": "finished"}, "recipients": recipients}
    machine.run(
        "cat >/tmp/job.yaml",
        input=yaml.safe_dump(lasting(yaml.safe_load(smoke), 1) | {"notify": notify}),
    )
    python = f"/srv/lava/instances/{way.name}/code/current/venv/bin/python"
    publisher = f"tcp://{machine.address}:{EVENT_PORTS[way.name]}"
    client = client_of(machine, way)
    with ExitStack() as stack:

        def watch(name: str, command: Sequence[str], said: str) -> str:
            output = stack.enter_context(in_background(machine, command, f"/tmp/{name}"))
            until_it_has(machine, output, said)
            return output

        subscribed = watch("subscribed", [python, "-uc", SUBSCRIBER, publisher], "subscribed")
        listened = watch("listened", [*client, "events", "listen"], "Connecting to")
        number = machine.run([*client, "jobs", "submit", "/tmp/job.yaml"]).stdout.strip()
        wait = ["events", "wait", "job", number, "--state", "FINISHED"]
        by_number = [*client_of(machine, way, program=["-c", WAIT_FOR_NUMBER]), *wait]
        event = watch("event", ["sh", "-c", '"$@"; echo seen', "sh", *by_number], "Connecting to")
        waited = machine.run([*client, "jobs", "wait", "--polling", "1", number]).stdout
        for path, last in ((listened, "Finished"), (event, "seen"), (subscribed, "Finished")):
            until_it_has(machine, path, last)
        texts = [machine.run(["cat", path]).stdout for path in (event, listened, subscribed)]
    return Watched(number, waited, *texts)


def test_two_instances_on_one_host_name_keep_their_cookies_apart(prepared: Admin) -> None:
    machine, ways = prepared.machine, (LOCATION, SECOND)
    install_location(prepared, SECOND, "--no-dispatcher", "--set", "components.publisher=false")
    try:
        session = Session(machine)
        for each in ways:
            session.log_in(each, secret(machine, each, "admin-password"))
        assert [session.is_logged_in(each) for each in ways] == [True, True]
        session.log_out(SECOND)
        assert [session.is_logged_in(each) for each in ways] == [True, False]
    finally:
        prepared("remove", SECOND.name, "--yes")


def test_lavacli_waits_for_a_job_and_reads_what_it_said(
    way: Way, machine: Machine, watched: Watched
) -> None:
    ended = yaml.safe_load(ask_lavacli(machine, way, "jobs", "show", "--yaml", watched.number))
    assert (ended["state"], ended["health"]) == ("Finished", "Complete")
    log = ask_lavacli(machine, way, "jobs", "logs", watched.number)
    assert "Linux version" in log and "lava-test-shell" in log
    cases = ask_lavacli(machine, way, "results", watched.number, "--json")
    assert {"kernel", "login-action"} & {case["name"] for case in json.loads(cases)}


def test_lavacli_hears_events_through_the_websocket(way: Way, watched: Watched) -> None:
    """It finds the websocket by the address of XML-RPC: /NAME/ws/ of a location."""
    shown = f"{way.scheme}://<USERNAME>:<TOKEN>@{way.address}/ws/"
    for text in (watched.listened, watched.waited_for_event):
        assert f"Connecting to {shown}\n" in text
        assert "Connection issue" not in text
    for state in ("Submitted", "Scheduled", "Running", "Finished"):
        assert f"[{watched.number}] <" in watched.listened and f"state={state}" in watched.listened


def test_a_socket_for_events_that_an_admin_sets_has_them_and_the_scheduler_has_its_own(
    way: Way, machine: Machine, watched: Watched
) -> None:
    events = [json.loads(line) for line in watched.subscribed.splitlines()]
    states = [
        content["state"]
        for topic, content in events
        if topic.endswith(".testjob") and content["job"] == int(watched.number)
    ]
    assert states[0] == "Submitted" and states[-1] == "Finished"
    # without the events it hears, the scheduler looks for jobs every 20 seconds only
    connected = machine.run(f"ss -xH state connected | grep -c {way.name}/run/events-out.sock")
    assert int(connected.stdout) >= 1


def test_the_links_in_a_notification_mail_open(
    way: Way, machine: Machine, watched: Watched
) -> None:
    text = mail_about(machine, way, watched.number)
    links = re.findall(r"https?://\S+", text)
    assert links and all(link.startswith(f"http://{way.address}/") for link in links), text
    for link in links:
        page = Session(machine).get(link)
        assert (page.status, page.url.startswith(way.url)) == (200, True), link


def test_rest_lists_submits_and_hands_out_attachments(
    way: Way, machine: Machine, watched: Watched
) -> None:
    session, api = Session(machine), f"{way.url}api/v0.2/"
    token = f"Token {secret(machine, way, 'client-token')}"
    listed = json.loads(session.get(f"{api}jobs/?limit=1", Authorization=token).text)
    assert listed["results"][0]["id"]
    definition = ask_lavacli(machine, way, "jobs", "definition", watched.number)
    posted = post_json(session, f"{api}jobs/", token, definition=definition)
    assert posted.status == 201, posted.text
    [number] = json.loads(posted.text)["job_ids"]
    two = json.loads(session.get(f"{api}jobs/?limit=1", Authorization=token).text)
    assert two["next"].startswith(f"{api}jobs/?")
    assert session.get(two["next"], Authorization=token).status == 200
    ask_lavacli(machine, way, "jobs", "cancel", str(number))
    for suffix, found in {"junit": "<testsuite", "logs": "Linux version", "csv": "kernel"}.items():
        answer = session.get(f"{api}jobs/{watched.number}/{suffix}/", Authorization=token)
        assert answer.headers["Content-Disposition"].startswith("attachment;")
        assert found in answer.text


def test_pages_hand_out_attachments(way: Way, machine: Machine, watched: Watched) -> None:
    session = Session(machine)
    for path in (
        f"scheduler/job/{watched.number}/definition/plain",
        f"scheduler/job/{watched.number}/log_file/plain",
        f"results/{watched.number}/yaml",
        f"results/{watched.number}/csv",
    ):
        answer = session.get(f"{way.url}{path}")
        assert (answer.status, bool(answer.body)) == (200, True), path
        assert answer.headers["Content-Disposition"].startswith("attachment;")


def test_large_files_go_up_and_come_back(way: Way, machine: Machine) -> None:
    session, admins = Session(machine), admin_token(machine, way)
    template = "{% extends 'qemu.jinja2' %}\n" + "{# " + "x" * LARGE + " #}\n"
    machine.run("cat >/tmp/template.jinja2", input=template)
    template_of = [*client_of(machine, way, "admin", admins), "device-types", "template"]
    machine.run([*template_of, "set", "qemu", "/tmp/template.jinja2"])
    assert machine.run([*template_of, "get", "qemu"]).stdout.strip() == template.strip()
    address = f"{way.url}api/v0.2/devicetypes/qemu/template/"
    token = f"Token {admins}"
    small = "{% extends 'base-qemu.jinja2' %}\n"
    posted = post_json(session, address, token, template=template + small)
    assert posted.status in (200, 204), posted.text[:200]
    assert session.get(address, Authorization=token).text == template + small
    machine.run(f"rm /srv/lava/instances/{way.name}/etc/device-types/qemu.jinja2")


def test_a_large_job_is_taken(way: Way, machine: Machine, smoke: str) -> None:
    large = smoke + f"# {'x' * 1000}\n" * (LARGE // 1000)
    machine.run("cat >/tmp/large.yaml", input=large)
    assert ask_lavacli(machine, way, "jobs", "validate", "/tmp/large.yaml") == ""


def test_people_log_in_and_out(way: Way, machine: Machine) -> None:
    session = Session(machine)
    assert not session.is_logged_in(way)
    assert session.log_in(way, "wrong").url == f"{way.url}accounts/login/"
    assert not session.is_logged_in(way)
    entered = session.log_in(way, secret(machine, way, "admin-password"))
    assert (entered.status, entered.url) == (200, way.url)
    assert session.is_logged_in(way)
    left = session.log_out(way)
    assert left.url.startswith(way.url)
    assert not session.is_logged_in(way)


def test_admin_pages_work(way: Way, machine: Machine) -> None:
    session = Session(machine)
    session.log_in(way, secret(machine, way, "admin-password"))
    made = session.send_form(f"{way.url}admin/auth/group/add/", name="friends")
    assert made.url == f"{way.url}admin/auth/group/" and "friends" in made.text
    number = re.search(r"/admin/auth/group/(\d+)/change/", made.text)
    assert number
    address = f"{way.url}admin/auth/group/{number[1]}/delete/"
    gone = session.send_form(address, post="yes")
    assert gone.url == f"{way.url}admin/auth/group/" and ">friends</a>" not in gone.text


@pytest.mark.parametrize(
    "path", ["admin", "api/v0.2/jobs", "scheduler", "results", "accounts/login"]
)
def test_an_address_without_its_last_slash_leads_to_the_page(
    way: Way, machine: Machine, path: str
) -> None:
    session = Session(machine)
    with_slash = session.get(f"{way.url}{path}/")
    without = session.get(f"{way.url}{path}")
    assert without.status == with_slash.status == 200
    assert without.url == with_slash.url and with_slash.url.startswith(way.url)


def test_the_bare_address_of_an_instance_is_its_home_page(way: Way, machine: Machine) -> None:
    page = Session(machine).get(way.url.rstrip("/"))
    assert page.status == 200 and "Welcome to LAVA" in page.text
