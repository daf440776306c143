"""A machine in memory for the doors to open on: files, accounts, services, databases, Apache.

It refuses every command and request that it does not know. tests/contract/test_doors.py keeps it
from drifting away from the real one.
"""

from tests.fakes.packs import FakePacks
from tests.fakes.servers import FakePlaybook, FakePostgres, FakeWeb
from tests.fakes.system import FakeSystem
from tests.fakes.world import Killed, Trouble, World

__all__ = [
    "FakePacks",
    "FakePlaybook",
    "FakePostgres",
    "FakeSystem",
    "FakeWeb",
    "Killed",
    "Trouble",
    "World",
]
