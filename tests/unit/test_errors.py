"""What an error tells an admin to do."""

import errno
import os

import pytest

from lava_deploy.errors import DISK_FULL, MAKE_ROOM, CommandFailed, DeployError, remedy


@pytest.mark.parametrize(
    "said",
    [
        "cp: error writing 'x': No space left on device\n",
        "ERROR:  wrote only 4096 of 8192 bytes\nHINT:  Check free disk space.",
    ],
)
def test_a_full_disk_is_known_from_what_a_command_says(said):
    assert CommandFailed(["cp"], 1, said).hint == MAKE_ROOM
    assert CommandFailed(["cp"], 1, said, hint="Do something else.").hint == "Do something else."
    assert CommandFailed(["cp"], 1, "cp: no such file").hint == ""


def test_a_full_disk_is_known_from_a_failed_write():
    assert os.strerror(errno.ENOSPC) in DISK_FULL
    assert remedy(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == MAKE_ROOM
    assert remedy(OSError(errno.EACCES, "no")) == ""


def test_the_remedy_of_other_errors_is_their_hint():
    assert remedy(DeployError("it failed", hint="Mend it.")) == "Mend it."
    assert remedy(KeyError("x")) == ""
