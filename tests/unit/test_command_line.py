"""What the command says, where no machine is needed."""

import dataclasses

import click
import pytest

from lava_deploy.cli import lava_deploy
from lava_deploy.cli.context import told
from lava_deploy.steps import Journal

STOPPED = Journal("remove", "demo", {}, "2026-01-01T00:00:00Z", "0.1")


@pytest.mark.parametrize(
    ("how", "hint"),
    [
        ({}, "`lava-deploy resume demo` completes it, `lava-deploy abandon demo` undoes it."),
        ({"committed": True}, "`lava-deploy resume demo` completes it."),
        ({"undoing": True}, "`lava-deploy abandon demo` undoes it."),
    ],
)
def test_only_ways_that_are_open_are_offered_for_an_unfinished_run(how, hint):
    assert told(dataclasses.replace(STOPPED, **how))[1] == hint


@pytest.mark.parametrize("verb", ["list", "show", "verify", "keep", "remove", "prune"])
def test_snapshots_are_asked_for_by_what_can_be_a_name(verb: str) -> None:
    words = ["snapshots", verb, "../demo", *(["latest"] if verb in ("keep", "remove") else [])]
    with pytest.raises(click.BadParameter, match="should begin with a lower-case letter"):
        lava_deploy.main(words, standalone_mode=False)
