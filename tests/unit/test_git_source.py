"""Which code a REVISION and a source mean, how its version is told, what it depends on."""

import os

import pytest
import yaml

from lava_deploy import config, sources, system
from lava_deploy.errors import UnknownRevision, Unreachable, UsageError
from lava_deploy.model import Offers, Revision, Wanted
from lava_deploy.sources import git, repositories, trees

URL = "https://git.example.com/lab/lava.git"
COMMITS = {
    "HEAD": "c3",
    "refs/heads/master": "c3",
    "refs/heads/2026.07": "c4",
    "refs/tags/2026.07": "t1",
    "refs/tags/2026.07^{}": "c1",
    "refs/tags/2026.10.1": "t2",
    "refs/tags/2026.10.1^{}": "c2",
    "refs/tags/2027.01": "c5",
    "refs/tags/2026.10-rc1": "t6",
    "refs/tags/2026.10-rc1^{}": "c6",
}


@pytest.mark.parametrize(
    ("revision", "source", "environment", "meant"),
    [
        ("", "", {}, Wanted("latest", "", config.UPSTREAM)),
        ("2026.07", "git", {}, Wanted("2026.07", "git", config.UPSTREAM)),
        ("topic/one", "", {"LAVA_DEPLOY_GIT": URL}, Wanted("topic/one", "", URL)),
        ("", "debian", {}, Wanted("latest", "debian", config.UPSTREAM)),
        ("", URL, {}, Wanted("latest", "git", URL)),
        (
            "topic",
            "git@example.com:lab/lava",
            {},
            Wanted("topic", "git", "git@example.com:lab/lava"),
        ),
        ("/a/tree", "", {}, Wanted("", "directory", "/a/tree")),
        ("", "/a/tree/", {}, Wanted("", "directory", "/a/tree")),
        ("./tree", "", {}, Wanted("", "directory", os.path.abspath("tree"))),
        ("2026.07", "/a/repository", {}, Wanted("2026.07", "git", "/a/repository")),
    ],
)
def test_an_order_means_one_thing(revision, source, environment, meant):
    assert config.wanted(revision, source, environment) == meant


@pytest.mark.parametrize(
    ("branch", "revision", "source", "meant"),
    [
        ("topic", "", "", Wanted("topic", "", config.UPSTREAM)),
        ("topic", "2026.07", "", Wanted("2026.07", "", config.UPSTREAM)),
        ("topic", "", "/a/tree", Wanted("", "directory", "/a/tree")),
        (URL, "", "", Wanted("HEAD", "git", URL)),
        (URL, "c1c1c1c", "", Wanted("c1c1c1c", "git", URL)),
        (URL, "", "debian", Wanted("latest", "debian", config.UPSTREAM)),
        (URL, "/a/tree", "", Wanted("", "directory", "/a/tree")),
        ("/a/tree", "", "", Wanted("", "directory", "/a/tree")),
        ("/a/tree", "c1c1c1c", "", Wanted("c1c1c1c", "git", "/a/tree")),
    ],
)
def test_the_branch_of_2012_is_what_no_option_says(branch, revision, source, meant):
    assert config.wanted(revision, source, {"LAVA_SERVER_BRANCH": branch}) == meant


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(UsageError) as caught:
        config.wanted("", "https://me:opensesame@example.com/lava", {})
    assert "opensesame" not in str(caught.value) + caught.value.hint


def test_the_source_directory_has_to_be_a_path():
    with pytest.raises(UsageError, match="named"):
        config.wanted("", "directory", {})


@pytest.mark.parametrize(
    ("described", "rule", "version"),
    [
        ("2026.07", "", "2026.07"),
        ("2026.07-28-gd27bcfd", "{d['tag']}.dev{int(...):04}", "2026.07.dev0028"),
        ("2026.07-12345-gd27bcfd", "{d['tag']}.dev{int(...):04}", "2026.07.dev12345"),
        ("2023.01-3-g77087d8", "%s.%04d.g%s", "2023.01.0003.g77087d8"),
    ],
)
def test_a_commit_is_called_what_its_own_lava_would_call_it(described, rule, version):
    assert repositories.version_of(described, rule) == version


def test_releases_are_annotated_tags_of_months_the_newest_first():
    assert list(git.releases(COMMITS).items()) == [("2026.10.1", "c2"), ("2026.07", "c1")]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("2026.07", ("tag 2026.07", "c1")),
        ("2027.01", ("tag 2027.01", "c5")),
        ("master", ("branch master at c3", "c3")),
        ("HEAD", ("HEAD at c3", "c3")),
        ("nothing", ("", "")),
    ],
)
def test_a_name_is_a_tag_before_it_is_a_branch(name, meant):
    assert git._named(COMMITS, name) == meant


def test_an_unknown_name_is_answered_with_the_nearest():
    fault = git._unknown(URL, "2026.8", repositories.Answer(COMMITS))
    assert isinstance(fault, UnknownRevision)
    assert "2026.07" in fault.hint


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (
            f"warning: slow\nfatal: unable to access '{URL}': Could not resolve host\n",
            f"unable to access '{URL}': Could not resolve host",
        ),
        (
            "ssh: connection refused\nfatal: Could not read from remote repository.\n",
            f"{URL}: ssh: connection refused",
        ),
        ("", f"{URL}: git gave no reason"),
    ],
)
def test_the_first_fault_that_git_names_is_the_reason(said, failure):
    assert repositories._failure(URL, said) == failure


def test_a_git_that_is_missing_is_asked_again_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(system, "SEARCH_PATH", str(tmp_path))
    here = system.System()
    assert "git is not installed" in repositories.ask(here, tmp_path / "cache", URL, 3600).failure
    git_program = tmp_path / "git"
    git_program.write_text("#!/bin/sh\nprintf 'c1\\trefs/heads/master\\n'\n")
    git_program.chmod(0o755)
    answer = repositories.ask(here, tmp_path / "cache", URL, 3600)
    assert (answer.commits, answer.failure) == ({"refs/heads/master": "c1"}, "")


def test_server_and_dispatcher_are_what_a_tree_has_to_bring():
    extras = {"server": ["django>=4.2"], "dispatcher": ["pexpect"], "dev": ["ruff"]}
    project = {"project": {"dependencies": ["pyyaml"], "optional-dependencies": extras}}
    assert trees.requirements_of(project).split() == [
        *("django>=4.2", "gunicorn", "pexpect", "pyyaml", "sentry-sdk", "voluptuous")
    ]


def test_a_tree_without_extras_tells_debian_packages():
    assert trees.requirements_of({"tool": {"ruff": {}}}) == ""
    listing = yaml.safe_load(
        """
        lava-server:
          django: {name: python3-django}
          pytest: {name: python3-pytest, unittests: true}
        lava-dispatcher: {bmap: {name: bmap-tools}, PyYAML: {name: python3-yaml}}
        lava-common:
        """
    )
    assert trees.packages_of(listing) == ["python3-django", "python3-yaml"]


def of(version: str, source: str, **fields) -> Revision:
    return Revision(version, source, source, "x", **fields)


def test_the_latest_is_the_newest_of_all_sources():
    offered = (of("2026.10", "debian"), of("2023.01", "debian"), of("2026.10.1", "git"))
    assert sources.newest(Offers(offered)).source == "git"


def test_of_equal_releases_the_latest_is_that_of_the_first_source():
    offered = Offers((of("2026.10", "debian"), of("2026.10", "git")), ("git: away",))
    assert sources.newest(offered).source == "debian"


def test_the_latest_runs_here():
    offered = (of("2027.01", "debian", runs_here=False), of("2026.07", "git"))
    assert sources.newest(Offers(offered)).version == "2026.07"


def test_without_any_source_there_is_no_latest():
    with pytest.raises(Unreachable, match="git: away"):
        sources.newest(Offers((), ("git: away",)))
