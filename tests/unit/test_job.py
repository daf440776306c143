import json
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from lava_deploy.configuration import Route
from lava_deploy.errors import CommandFailed, JobFailed
from lava_deploy.model import Guest, Secret
from lava_deploy.parts import job
from lava_deploy.system import Finished, System

NONCE = "0123456789abcdef"
GUEST = Guest("amd64", Path("/cache/guest/6.1/vmlinuz"), Path("/cache/guest/6.1/initrd.cpio.gz"))
LOG = f"Linux version 6.1\n+ lava-test-case {job.proof(NONCE)} --result pass"


def outcome(**changes: Any) -> job.Outcome:
    ended: dict[str, Any] = {
        "job": 7,
        "health": "Complete",
        "cases": {"kernel": "pass", job.proof(NONCE): "pass"},
        "worker": "worker",
        "seconds": 8.0,
        "ended": "2026-11-25T00:15:54Z",
        "error_type": "",
        "error_message": "",
        "url": "http://demo.localhost/scheduler/job/7",
    }
    return job.Outcome(**{**ended, **changes})


class Lavacli(System):
    """Answers for lavacli: how a submission and the two looks at the log end."""

    def __init__(self, submitted: str = "7\n", refusal: str = "", looks: Sequence[int] = (0, 0)):
        super().__init__({})
        self.submitted, self.refusal, self.looks = submitted, refusal, list(looks)
        self.commands: list[list[str]] = []

    def run(self, command: Sequence[str | Path], **options: Any) -> Finished:
        words = [str(word) for word in command]
        self.commands.append(words)
        assert words[:4] == [*job.LAVACLI, "jobs"], "only lavacli is known here"
        if self.refusal:
            raise CommandFailed(words, 1, self.refusal)
        return Finished(0, self.submitted, "")

    def follow(
        self, command: Sequence[str | Path], line: Callable[[str], None], **options: Any
    ) -> int:
        self.commands.append([str(word) for word in command])
        status = self.looks.pop(0)
        if status == 130:
            raise KeyboardInterrupt
        return status

    def verbs(self) -> list[str]:
        return [words[words.index("jobs") + 1] for words in self.commands]


AUTHORITY = Path("/srv/lava/tls/ca.pem")


@pytest.fixture
def session(tmp_path: Path) -> job.Session:
    return job.Session("http://demo.localhost", Secret("secret-token"), tmp_path, {})


@pytest.mark.parametrize(("architecture", "console"), [("amd64", "ttyS0"), ("arm64", "ttyAMA0")])
def test_the_definition_hands_the_nonce_to_the_guests_kernel(architecture, console):
    guest = Guest(architecture, GUEST.kernel, GUEST.initrd)
    said = yaml.safe_load(job.definition(guest, "qemu", "a-tag", NONCE))
    images = said["actions"][0]["deploy"]["images"]
    assert f'"console={console} quiet lava_deploy_nonce={NONCE}"' in images["kernel"]["image_arg"]
    assert images["kernel"]["url"] == "file:///cache/guest/6.1/vmlinuz"
    assert said["context"]["arch"] == architecture
    assert said["tags"] == ["a-tag"]


def test_the_definition_names_the_image_by_its_path_as_it_is():
    """LAVA takes what follows file:// literally: no %2B for the + in versions of Debian's."""
    kernel = Path("/cache/guest/6.12+deb13/vmlinuz")
    guest = Guest("amd64", kernel, GUEST.initrd)
    said = yaml.safe_load(job.definition(guest, "qemu", "a-tag", NONCE))
    assert said["actions"][0]["deploy"]["images"]["kernel"]["url"] == f"file://{kernel}"


def test_the_definition_does_not_contain_the_answer():
    assert job.proof(NONCE) not in job.definition(GUEST, "qemu", "a-tag", NONCE)


def test_a_complete_job_with_the_guests_answer_is_accepted():
    job.judge(outcome())
    job.judge_proof(outcome(), LOG, NONCE)


def test_an_answer_to_another_nonce_is_no_proof():
    with pytest.raises(JobFailed, match="without the guest's answer"):
        job.judge_proof(outcome(), LOG, "fedcba9876543210")


def test_a_case_without_a_guest_in_the_log_is_no_proof():
    with pytest.raises(JobFailed, match="does not show that a guest ran"):
        job.judge_proof(outcome(), "", NONCE)


@pytest.mark.parametrize("kind", ["Infrastructure", "Job", "Test", "Bug", "Canceled"])
def test_a_failed_job_is_reported_with_lavas_error_type(kind):
    failed = outcome(health="Incomplete", error_type=kind, error_message="no luck")
    with pytest.raises(JobFailed, match=f"job 7 ended Incomplete: {kind} error: no luck"):
        job.judge(failed)


def test_a_complete_job_with_a_failed_case_is_not_accepted():
    with pytest.raises(JobFailed, match="did not pass: kernel"):
        job.judge(outcome(cases={"kernel": "fail", "uptime": "pass"}))


def test_the_token_lies_in_a_closed_file_and_only_while_the_session_lasts():
    route = Route(hostname="demo.localhost")
    with job.session(System({}), route, Secret("secret-token"), AUTHORITY) as session:
        file = session.folder / "lavacli.yaml"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(session.folder.stat().st_mode) == 0o700
        assert yaml.safe_load(file.read_text())["default"]["token"] == "secret-token"
        assert "secret-token" not in str(session)
    assert not session.folder.exists()


@pytest.mark.parametrize(
    ("certificate", "trusted"),
    [("none", ""), ("self-signed", str(AUTHORITY)), ("own", str(job.SYSTEM_TRUST))],
)
def test_lavacli_trusts_who_vouches_for_the_instance(certificate, trusted):
    route = Route(hostname="demo.localhost", certificate=certificate)
    with job.session(System({}), route, Secret("secret-token"), AUTHORITY) as session:
        assert session.environment.get("REQUESTS_CA_BUNDLE", "") == trusted
        assert session.url == f"http{'s' * bool(trusted)}://demo.localhost"


def test_a_submission_tells_the_number_of_the_job(session):
    system = Lavacli()
    assert job.submit(system, session, "job_name: x") == 7
    assert "secret-token" not in str(system.commands)


def test_a_refused_job_is_reported_with_lavas_reason(session):
    refusal = f'Unable to submit {session.folder}/job.yaml: <Fault 400: "extra keys not allowed">'
    with pytest.raises(JobFailed, match=r"did not take the job: .* job\.yaml: .*extra keys"):
        job.submit(Lavacli(refusal=refusal), session, "banana: 1")


def test_a_followed_job_is_not_cancelled(session):
    system = Lavacli()
    job.follow(system, session, 7, print)
    assert system.verbs() == ["logs", "logs"]


@pytest.mark.parametrize(
    ("looks", "error"),
    [((124,), JobFailed), ((0, 124), JobFailed), ((0, 130), KeyboardInterrupt)],
    ids=["does not start", "does not end", "is interrupted"],
)
def test_a_job_left_behind_is_cancelled_when_it(looks, error, session):
    system = Lavacli(looks=looks)
    with pytest.raises(error):
        job.follow(system, session, 7, print)
    assert system.verbs()[-1] == "cancel"


@pytest.mark.parametrize(
    ("level", "message", "shown"),
    [
        ("target", "\x1b[0mLinux version 6.1", ["guest: Linux version 6.1"]),
        ("target", "c[?7l[2J[0mSeaBIOS", ["guest: SeaBIOS"]),
        ("target", "<LAVA_SIGNAL_STARTTC kernel>", []),
        ("target", "lava-guest# [6n", []),
        ("info", "start: 2 boot-image-retry (timeout 00:04:00) [common]", ["boot-image-retry"]),
        ("debug", "start: 2.1 execute-qemu (timeout 00:04:00) [common]", []),
        ("error", "no such file", ["error: no such file"]),
        ("exception", "Traceback …:\n  line 1\nOSError: no\n", ["exception: OSError: no"]),
        (
            "results",
            {"definition": "0_smoke", "case": "kernel", "result": "pass"},
            ["kernel: pass"],
        ),
        ("results", {"definition": "lava", "case": "job", "result": "pass"}, []),
    ],
)
def test_a_line_of_the_log_shows_what_a_person_wants_to_know(level, message, shown):
    seen: list[str] = []
    event = {"dt": "2026-11-25T00:00:00", "lvl": level, "msg": message}
    job._tell(f"- {json.dumps(event)}", seen.append)
    assert seen == shown


def test_what_is_no_event_shows_nothing():
    seen: list[str] = []
    for line in ("Unable to connect: {", "plain", ""):
        job._tell(line, seen.append)
    assert seen == []
