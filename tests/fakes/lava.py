"""LAVA on the machine in memory: rows in a database, and the batch of lava_site."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from lava_deploy.errors import CommandFailed
from tests.fakes.world import World

# The actions of lava_site/batch.py that plans use; those that change nothing; what some answer.
ACTIONS = (
    "api_token device device_type devices_to_maintenance forget_example_worker migrate "
    "move_media renew_unusable_passwords site submitter superuser take_over_worker worker"
)
LOOKS = ("load_pages", "migrations")
# What the row of a job begins with that has begun and not ended.
RUNNING = "running job "
ANSWERS = {
    "devices_to_maintenance": [],
    "end_running_jobs": [],
    "migrations": {"unknown": [], "missing": [], "too_old": []},
    "move_media": 0,
}


def manage(
    world: World,
    words: Sequence[str],
    actions: Sequence[dict[str, object]],
    user: str,
    environment: Mapping[str, str],
) -> str:
    """The batch of lava_site: it logs in as its settings say, and keeps each action as a row."""
    etc = Path(environment["LAVA_SITE_ETC"])
    if f"{etc}/site/lava_site/batch.py" not in world.nodes:
        raise CommandFailed(words, 1, "No module named lava_site.batch")
    login = yaml.safe_load(world.text(etc / "settings.d/00-instance.yaml"))["DATABASES"]["default"]
    password = yaml.safe_load(world.text(etc / "secrets.yaml"))["DATABASE_PASSWORD"]
    place = [f"--dbname={environment.get('LAVA_SITE_DATABASE') or login['NAME']}"]
    rows = rows_of(world, words, place, login["USER"], {"PGPASSWORD": password})
    for action in actions:
        if action["action"] in LOOKS:
            continue
        if action["action"] == "end_running_jobs":
            for row in [row for row in rows if row.startswith(RUNNING)]:
                del rows[row]
            continue
        assert action["action"] in ACTIONS.split(), f"unknown action: {action['action']}"
        if action["action"] != "migrate" and "migrate" not in rows:
            raise CommandFailed(words, 1, "relation does not exist")
        key = "" if action["action"] in ("migrate", "site") else action.get("name", "")
        rows[f"{action['action']} {key}".strip()] = json.dumps(action, sort_keys=True)
    return json.dumps([ANSWERS.get(str(action["action"])) for action in actions])


def rows_of(
    world: World, words: Sequence[str], place: Sequence[str], user: str, login: Mapping[str, str]
) -> dict[str, str]:
    """What is in a database, for who has its password."""
    if world.roles.get(user) != login["PGPASSWORD"]:
        raise CommandFailed(words, 2, "FATAL: password authentication failed")
    return world.databases[place[-1].removeprefix("--dbname=")]
