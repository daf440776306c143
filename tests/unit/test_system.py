"""The door to this machine, where it needs no root."""

import grp
import os
import pwd

import pytest

from lava_deploy.errors import CommandFailed
from lava_deploy.system import System


def test_ctrl_c_is_left_to_the_command_on_the_terminal():
    assert System().attach(["sh", "-c", "kill -INT $PPID; exit 3"]) == 3


def test_a_command_that_a_signal_ends_has_the_status_a_shell_gives_it():
    assert System().attach(["sh", "-c", "kill -INT $$"]) == 130


def test_what_a_killed_run_has_half_written_goes_and_what_another_is_writing_stays(tmp_path):
    torn, living = (tmp_path / f".file.writing-{process}-x" for process in (99999999, os.getpid()))
    torn.touch()
    living.touch()
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    System().write(tmp_path / "file", "whole", owner=user, group=group)
    assert sorted(tmp_path.iterdir()) == [living, tmp_path / "file"]
    torn.touch()
    System().remove(tmp_path / "file")
    assert list(tmp_path.iterdir()) == [living]


def test_a_tree_is_told_with_what_is_below_its_directories_and_links_are_not_followed(tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/file").write_text("four")
    (tmp_path / "link").symlink_to("directory")
    found = System().statuses(tmp_path)
    assert sorted(found) == [".", "directory", "directory/file", "link"]
    assert found["directory/file"].st_size == 4
    assert found["link"].st_ino == (tmp_path / "link").lstat().st_ino


def test_files_and_directories_are_brought_to_the_disk(tmp_path):
    (tmp_path / "file").touch()
    System().flush(tmp_path / "file")
    System().flush(tmp_path)


def test_a_command_runs_while_a_block_does_and_is_waited_for(tmp_path):
    script = f"(cat; echo $TOLD) >{tmp_path}/given"
    with System().meanwhile(["sh", "-c", script], "a list\n", {"TOLD": "a secret"}):
        pass
    assert (tmp_path / "given").read_text() == "a list\na secret\n"


def test_a_command_that_fails_meanwhile_fails_the_block_with_its_words():
    running = System().meanwhile(["sh", "-c", "echo out; echo wrong >&2; exit 3"], "", {})
    with pytest.raises(CommandFailed, match="status 3\n  out\n  wrong"), running:
        pass


def test_a_block_that_fails_ends_the_command(tmp_path):
    running = System().meanwhile(["sh", "-c", f"sleep 600; touch {tmp_path}/ended"], "", {})
    with pytest.raises(ZeroDivisionError), running:
        raise ZeroDivisionError
    assert not (tmp_path / "ended").exists()
