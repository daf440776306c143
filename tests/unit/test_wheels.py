"""What a release is built of: locks and source packages read, indexes told to pip."""

import pytest

from lava_deploy import uv
from lava_deploy.parts import wheels
from lava_deploy.system import System

LOCK = """\
aiohttp==3.14.3 ; python_full_version < '3.14' \\
    --hash=sha256:03cd \\
    --hash=sha256:041b
celery[sqs]==5.6.3 \\
    --hash=sha256:1808
"""


def test_a_lock_tells_versions_without_hashes():
    assert wheels.locked_versions(LOCK) == "aiohttp==3.14.3\ncelery==5.6.3\n"


def test_a_source_package_tells_what_it_is_built_with():
    project = '[build-system]\nrequires = ["poetry-core>=1", "setuptools"]\n'
    assert wheels.builders(project) == ("poetry-core>=1", "setuptools", "wheel")
    assert wheels.builders("") == ("setuptools>=40.8.0", "wheel")
    assert wheels.builders('[project]\nname = "x"\n') == ("setuptools>=40.8.0", "wheel")


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Where uv and pip are told of an index, on this machine of nobody else's."""
    monkeypatch.setattr(uv, "UV_SETTINGS", tmp_path / "uv.toml")
    monkeypatch.setattr(uv, "PIP_SETTINGS", tmp_path / "pip.conf")
    monkeypatch.setattr(uv, "CERTIFICATES", tmp_path / "none")
    return tmp_path


def test_pip_asks_the_index_that_only_uv_was_told_of(told):
    (told / "uv.toml").write_text('index-url = "https://a.example/simple"\n')
    assert uv.pip_settings(System()) == {"PIP_INDEX_URL": "https://a.example/simple"}
    (told / "uv.toml").write_text(
        '[[index]]\nurl = "https://more.example"\n'
        '[[index]]\nurl = "https://special.example"\nexplicit = true\n'
        '[[index]]\nurl = "https://b.example"\ndefault = true\n'
        '[pip]\nextra-index-url = ["https://c.example"]\n'
    )
    assert uv.pip_settings(System()) == {
        "PIP_INDEX_URL": "https://b.example",
        "PIP_EXTRA_INDEX_URL": "https://more.example https://c.example",
    }


def test_pip_that_was_told_of_an_index_is_left_to_that(told):
    (told / "uv.toml").write_text('index-url = "https://a.example/simple"\n')
    (told / "pip.conf").write_text("[global]\nindex-url = https://d.example/simple\n")
    assert uv.pip_settings(System()) == {}
