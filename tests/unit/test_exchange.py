"""Exchanges by renaming, on the real disk: whatever was cut off is completed, or undone."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lava_deploy.beside import Exchange
from lava_deploy.errors import DeployError
from lava_deploy.model import Host, Instance
from lava_deploy.parts import exchange
from lava_deploy.system import System
from tests.fakes.media import listing

# Paths in the media, whether anything comes, and whether anything leaves.
WRITTEN = (
    ("job-output/2026/09/30", True, False),
    ("job-output/2026/11/20", False, True),
    ("job-output/2026/11/21", True, True),
    ("export", True, True),
)
FAULT = OSError(28, "No space left on device")


class Torn(System):
    """This machine, whoever runs the tests, on which a rename fails after some that succeeded."""

    def __init__(self, renames: int = 99) -> None:
        super().__init__({})
        self.renames = renames

    def make_directory(
        self, path: Path, mode: int = 0o755, owner: str = "root", group: str = "root"
    ) -> None:
        path.mkdir(mode, parents=True, exist_ok=True)

    def rename(self, path: Path, to: Path) -> None:
        if self.renames == 0:
            raise FAULT
        self.renames -= 1
        super().rename(path, to)


class Rig:
    """An instance with media, others that wait, and where the former ones go."""

    def __init__(self, root: Path) -> None:
        self.instance: Instance = Host.below(root).instance("demo")
        self.into, self.out = self.instance.root / "waiting", self.instance.root / "former"
        for path, comes, leaves in WRITTEN:
            for place, there in ((self.into, comes), (self.instance.media, leaves)):
                if there:
                    (place / path).mkdir(parents=True)
                    (place / path / "file").write_text(f"{path} of {place.name}")
        self.exchanges: Sequence[Exchange] = exchange.within(
            self.instance.media, self.into, self.out, WRITTEN
        )

    @property
    def media(self) -> dict[str, object]:
        """What is in the files, by their paths."""
        found = listing(self.instance.media)
        return {path: content for path, (_, _, content) in found.items()}

    def make(self, renames: int = 99) -> None:
        exchange.make(Torn(renames), self.instance, self.exchanges)

    def undo(self, renames: int = 99) -> None:
        exchange.undo(Torn(renames), self.instance, self.exchanges)


@pytest.fixture
def rig(tmp_path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def half_done(tmp_path) -> Iterator[Rig]:
    """Each state in which a failure leaves an exchange."""

    def each() -> Iterator[Rig]:
        for renames in range(7):
            rig = Rig(tmp_path / str(renames))
            before = rig.media
            try:
                rig.make(renames)
            except OSError as error:
                assert error is FAULT
            rig.before = before
            yield rig

    return each()


def test_what_waits_comes_and_what_is_there_leaves(rig):
    rig.make()
    files = {path: content for path, content in rig.media.items() if content}
    assert files == {
        f"{path}/file": f"{path} of waiting".encode() for path, comes, _ in WRITTEN if comes
    }
    kept = {path for path, _, leaves in WRITTEN if leaves and (rig.out / path / "file").exists()}
    assert kept == {path for path, _, leaves in WRITTEN if leaves}


def test_made_twice_is_made_once(rig):
    rig.make()
    made = listing(rig.instance.root)
    rig.make()
    assert listing(rig.instance.root) == made


def test_what_was_cut_off_anywhere_is_completed(half_done, tmp_path):
    whole = Rig(tmp_path / "whole")
    whole.make()
    for rig in half_done:
        rig.make()
        assert rig.media == whole.media


def test_what_was_cut_off_anywhere_is_undone_even_if_that_is_cut_off_as_well(half_done, tmp_path):
    for number, rig in enumerate(half_done):
        for renames in range(6):
            try:
                rig.undo(renames)
            except OSError as error:
                assert error is FAULT
        rig.undo()
        assert rig.media == rig.before, number
        exchange.require_undone(System({}), rig.exchanges)


def test_an_undo_after_which_all_was_cleared_away_is_repeated_without_harm(rig):
    before = rig.media
    rig.make()
    rig.undo()
    System({}).remove_tree(rig.into)
    rig.undo()
    assert rig.media == before


def test_an_undo_without_an_exchange_changes_nothing(rig):
    before = listing(rig.instance.root)
    rig.undo()
    assert listing(rig.instance.root) == before


def test_while_anything_is_not_as_before_it_is_told(half_done):
    for number, rig in enumerate(half_done):
        if number == 0:
            exchange.require_undone(System({}), rig.exchanges)
        else:
            with pytest.raises(DeployError, match=r"is not (back|gone)"):
                exchange.require_undone(System({}), rig.exchanges)
