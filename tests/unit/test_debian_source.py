"""Which revision is meant, which Python runs it, and what LAVA's packages need from PyPI."""

import pytest

from lava_deploy import sources
from lava_deploy.errors import UnknownRevision, UsageError
from lava_deploy.model import Offers, Revision, Wanted
from lava_deploy.sources import archive, debian, packages, pythons
from lava_deploy.system import System


def revision(package: str, **fields) -> Revision:
    return Revision(package.partition("-")[0], "debian", "Debian testing", package, **fields)


OFFERED = Offers(
    (
        revision("2027.01-1", runs_here=False, why_not="it needs Python 3.15"),
        revision("2026.10-2"),
        revision("2026.10-1"),
        revision("2023.01-2"),
    ),
    ("mirror unstable: away",),
)


def test_the_latest_is_the_newest_that_runs_here():
    assert debian.choose(OFFERED, "latest").locator == "2026.10-2"


def test_a_version_means_its_newest_package():
    assert debian.choose(OFFERED, "2026.10").locator == "2026.10-2"


def test_a_package_can_be_named_exactly():
    assert debian.choose(OFFERED, "2026.10-1").locator == "2026.10-1"


def test_an_unknown_version_is_answered_with_the_nearest_and_what_was_not_reached():
    with pytest.raises(UnknownRevision, match="mirror unstable: away") as caught:
        debian.choose(OFFERED, "2023.02")
    assert caught.value.hint.startswith("The nearest is 2023.01. ")


def test_a_version_that_does_not_run_here_is_refused_with_the_reason():
    with pytest.raises(UnknownRevision, match=r"it needs Python 3\.15"):
        debian.choose(OFFERED, "2027.01")


def test_an_unknown_source_is_answered_with_those_there_are(tmp_path):
    with pytest.raises(UsageError) as caught:
        sources.find(System(), tmp_path, Wanted("latest", "tarball", ""), print)
    assert "debian" in caught.value.hint


@pytest.mark.parametrize(
    ("lava", "python", "runs"),
    [
        ("2026.10", (3, 11), True),
        ("2026.10", (3, 13), True),
        ("2026.10", (3, 9), False),
        ("2023.01", (3, 11), True),
        ("2023.01", (3, 13), False),
        ("2020.12", (3, 11), False),
    ],
)
def test_a_python_runs_the_lava_that_was_written_for_it(lava, python, runs):
    assert bool(pythons.why_not(lava, python)) != runs


def test_versions_of_packages_are_ordered_by_number():
    versions = ["2023.01-2", "2026.09-1", "2026.10-10", "2026.10-2", "2026.10.1-1"]
    assert sorted(versions, key=debian._age_of) == [
        *("2023.01-2", "2026.09-1", "2026.10-2", "2026.10-10", "2026.10.1-1")
    ]


def test_the_requirements_of_server_and_dispatcher_are_taken():
    listing = "pyyaml\n\n[dev]\nruff\n\n[dispatcher]\npexpect\n\n[server]\ndjango<6.0,>=5.2\n"
    assert packages.requirements_of(listing).split() == [
        *("django<6.0,>=5.2", "gunicorn", "pexpect", "pyyaml", "sentry-sdk", "voluptuous")
    ]


@pytest.mark.parametrize(
    ("debian_version", "bounds"),
    [
        ("3:3.2.25-0+deb12u3", ">=3.2.25,==3.2.*"),
        ("1.0.0~dev2-1", ">=1.0.0dev2,==1.0.*"),
        ("23.1-1", ">=23.1,==23.1.*"),
        ("0.11.0+ds1-2+b1", ">=0.11.0,==0.11.*"),
        ("2022-1", ">=2022,==2022.*"),
    ],
)
def test_a_requirement_keeps_to_the_series_that_debian_has(debian_version, bounds):
    assert packages.bounds(debian_version) == bounds


def test_names_on_the_package_index_are_those_of_the_packages_but_for_a_few():
    versions = {"python3-yaml": "6.0-3", "python3-guestfs": "1.48-1", "gunicorn": "20.1.0-6"}
    assert packages.pinned_requirements(versions).split() == [
        *("gunicorn>=20.1.0,==20.1.*", "pyyaml>=6.0,==6.0.*")
    ]


def test_of_alternatives_the_first_is_needed():
    fields = {"Depends": "python3-zmq (>= 1), python3-a | python3-b, python3:any, libjs-x"}
    assert packages.depends([fields], "python3-.*") == ["python3-a", "python3-zmq"]


def test_the_reason_is_the_first_error_that_apt_names():
    said = "W: slow\nE: The repository is not signed.\nE: Some index files failed\n"
    assert archive.reason(said) == "The repository is not signed."
