"""Locks: who holds one, and what is left of it."""

import pytest

from lava_deploy import locks
from lava_deploy.errors import Busy


def test_a_lock_names_its_holder(tmp_path):
    with (
        locks.locked(tmp_path, "demo", "lava-deploy install demo"),
        pytest.raises(Busy, match=r"demo is locked: .*`lava-deploy install demo` since 2"),
        locks.locked(tmp_path, "demo", "another"),
    ):
        pass
    with locks.locked(tmp_path, "demo", "another"), locks.locked(tmp_path, "other", "besides"):
        pass


def test_a_lock_without_a_readable_holder_is_held_all_the_same(tmp_path):
    with locks.locked(tmp_path, "demo", "first"):
        (tmp_path / "demo.lock").write_text("")
        with (
            pytest.raises(Busy, match="somebody else"),
            locks.locked(tmp_path, "demo", "second", patience=0.15),
        ):
            pass


def test_a_lock_is_held_while_a_run_is_at_work(tmp_path):
    assert not locks.is_held(tmp_path, "demo")
    with locks.locked(tmp_path, "demo", "first"):
        assert locks.is_held(tmp_path, "demo")
    (tmp_path / "demo.lock").touch()
    assert not locks.is_held(tmp_path, "demo")


def test_nothing_is_left_of_a_lock(tmp_path):
    with locks.locked(tmp_path, "demo", "first"):
        assert (tmp_path / "demo.lock").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []
