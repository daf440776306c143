"""What is printed where."""

import io
import json

from lava_deploy.model import Secret
from lava_deploy.report import Report
from lava_deploy.steps import Plan, Step, nothing


def report(**options: bool) -> tuple[Report, io.StringIO, io.StringIO]:
    stdout, stderr = io.StringIO(), io.StringIO()
    return Report(stdout=stdout, stderr=stderr, **options), stdout, stderr


def test_without_a_terminal_a_step_is_one_plain_line():
    it, stdout, stderr = report()
    it.began("make the user", 1, 9)
    it.progress("useradd")
    it.ended("make the user")
    assert stderr.getvalue() == "[1/9] make the user … done (0.0 s)\n"
    assert stdout.getvalue() == ""


def test_verbose_shows_what_a_step_is_doing_and_quiet_nothing_of_it():
    loud, _, heard = report(verbose=True)
    mute, _, silence = report(quiet=True)
    for it in (loud, mute):
        it.began("make the user", 1, 9)
        it.progress("useradd")
        it.ended("make the user")
    assert "    useradd\n" in heard.getvalue()
    assert silence.getvalue() == ""


def test_an_error_is_told_even_quietly_with_its_hint():
    it, _, stderr = report(quiet=True)
    it.error("no such instance", "There are: demo.")
    assert stderr.getvalue() == "error: no such instance\nhint: There are: demo.\n"


def test_json_has_a_version_and_no_secret():
    it, stdout, _ = report()
    it.json({"login": [{"password": Secret("hush")}]})
    assert json.loads(stdout.getvalue()) == {"version": 1, "login": [{"password": "***"}]}


def test_a_table_is_as_wide_as_its_widest_text():
    it, stdout, _ = report()
    it.table(["NAME", "URL"], [["demo", "http://demo/"], ["second-one", "-"]])
    assert stdout.getvalue().splitlines() == [
        "NAME        URL",
        "demo        http://demo/",
        "second-one  -",
    ]


def test_a_plan_is_its_numbered_steps():
    it, stdout, _ = report()
    it.plan(Plan("install", "demo", (Step("one", nothing),), (Step("two", nothing),)))
    assert stdout.getvalue() == " 1. one\n 2. two\n"


def test_the_log_keeps_what_was_told_and_the_traceback_of_an_error(tmp_path):
    it, _, _ = report(quiet=True)
    it.log_to(tmp_path / "logs/lava-deploy.log")
    it.began("one", 1, 1)
    try:
        raise RuntimeError("no luck")
    except RuntimeError as error:
        it.failed("one", error)
    kept = (tmp_path / "logs/lava-deploy.log").read_text()
    assert "[1/1] one … failed" in kept and "Traceback" in kept and "no luck" in kept
    assert (tmp_path / "logs/lava-deploy.log").stat().st_mode & 0o777 == 0o640


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path):
    (tmp_path / "file").touch()
    it, _, stderr = report()
    it.log_to(tmp_path / "file/lava-deploy.log")
    it.note("still here")
    assert stderr.getvalue() == "still here\n"
