"""What an error tells an admin to do."""

import errno
import os

from lava_deploy.errors import DISK_FULL, MAKE_ROOM, CommandFailed, DeployError, remedy


def test_a_full_disk_is_known_from_what_a_command_says():
    assert CommandFailed(["cp"], 1, f"cp: error writing 'x': {DISK_FULL}\n").hint == MAKE_ROOM
    assert CommandFailed(["cp"], 1, DISK_FULL, hint="Do something else.").hint != MAKE_ROOM
    assert CommandFailed(["cp"], 1, "cp: no such file").hint == ""


def test_a_full_disk_is_known_from_a_failed_write():
    assert os.strerror(errno.ENOSPC) == DISK_FULL
    assert remedy(OSError(errno.ENOSPC, DISK_FULL)) == MAKE_ROOM
    assert remedy(OSError(errno.EACCES, "no")) == ""


def test_the_remedy_of_other_errors_is_their_hint():
    assert remedy(DeployError("it failed", hint="Mend it.")) == "Mend it."
    assert remedy(KeyError("x")) == ""
