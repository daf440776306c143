"""The door to this machine, where it needs no root."""

from lava_deploy.system import System


def test_ctrl_c_is_left_to_the_command_on_the_terminal():
    assert System().attach(["sh", "-c", "kill -INT $PPID; exit 3"]) == 3


def test_a_command_that_a_signal_ends_has_the_status_a_shell_gives_it():
    assert System().attach(["sh", "-c", "kill -INT $$"]) == 130
