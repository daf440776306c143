#!/usr/bin/env python3
"""Fills an instance as years of jobs would; runs inside its host, as root.

filling.py fill NAME JOBS DAYS     until it has that many jobs, and media of that many days
filling.py change NAME             as a busy night would: a hundredth more, some old logs touched
filling.py jobs NAME               the numbers of the jobs that have media, as JSON

All rows go into LAVA's own tables, whichever columns these have: a job is a copy of the first one,
which quickstart has run, with other times. Media are laid out as LAVA does, in a directory for each
job below one for each day; no line of a log is like another, and gzip makes it about 7.5 times
smaller. The same numbers give the same media. What is there already is not made again.
"""

import json
import os
import pwd
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

INSTANCES = Path("/srv/lava/instances")
# As many as make 0.9 GB of database out of 70,000 jobs, and 100,000 files of 4.8 GB in 200 days.
JOBS_A_DAY, FILES_A_DAY, CASES_IN_A_SUITE = 152, 500, 19
BYTES_OF_A_LOG = 145_000
SPREAD = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.8, 2.0)
MARK = "filled"
# Older days whose logs something touches, and recent ones.
OLD, RECENT = 5, 3
GENTLY = "SET synchronous_commit = off;"
# Times in UTC, as LAVA names its directories by that. What is filled ends two days ago, so that
# there are days for what comes later.
ADD_JOBS = f"""
INSERT INTO lava_scheduler_app_testjob
SELECT job.* FROM
    lava_scheduler_app_testjob AS first,
    generate_series(:first, :last) AS number,
LATERAL (SELECT (
    date_trunc('day', now() AT TIME ZONE 'UTC')
    - (:late + (:count - number) / :a_day) * interval '1 day'
    + interval '6 h' + (:count - number) % :a_day * interval '1 min'
) AT TIME ZONE 'UTC' AS began) AS time,
LATERAL jsonb_populate_record(first, jsonb_build_object(
    'id', nextval(pg_get_serial_sequence('lava_scheduler_app_testjob', 'id')),
    'description', '{MARK} ' || number, 'token', md5('{MARK}' || number),
    'submit_time', began, 'start_time', began + interval '20 s',
    'end_time', began + interval '200 s')) AS job
WHERE first.id = (SELECT min(id) FROM lava_scheduler_app_testjob);
"""
ADD_RESULTS = f"""
INSERT INTO lava_results_app_testsuite (name, job_id)
SELECT name, id FROM lava_scheduler_app_testjob, (VALUES ('lava'), ('0_smoke')) AS suite (name)
WHERE description LIKE '{MARK} %'
AND substr(description, {len(MARK) + 2})::integer BETWEEN :first AND :last;
INSERT INTO lava_results_app_testcase
    (name, units, result, measurement, metadata, logged, suite_id, start_log_line, end_log_line)
SELECT 'case-' || number, 'seconds', number % 2, suite.id % 1000 / 7.0,
    E'definition: ' || suite.name || E'\\ncase: case-' || number || E'\\nduration: '
    || to_char(suite.id % 977 / 9.0, 'FM990.00') || E'\\nresult: pass\\nextra: '
    || md5((suite.id * {CASES_IN_A_SUITE} + number / 4)::text) || E'\\n',
    job.end_time, suite.id, number * 20, number * 20 + 19
FROM lava_results_app_testsuite AS suite
JOIN lava_scheduler_app_testjob AS job ON job.id = suite.job_id,
    generate_series(1, {CASES_IN_A_SUITE}) AS number
WHERE job.description LIKE '{MARK} %'
AND substr(job.description, {len(MARK) + 2})::integer BETWEEN :first AND :last;
"""
TOUCH = f"""
UPDATE lava_scheduler_app_testjob SET health = 3 - health, failure_comment = 'seen again'
WHERE description LIKE '{MARK} %' AND health IN (1, 2) AND id % 100 = 0;
"""
COUNT = f"SELECT count(*) FROM lava_scheduler_app_testjob WHERE description LIKE '{MARK} %'"
# The newest jobs are those that have media; each with its day.
NEWEST = f"""
SELECT id, to_char(submit_time AT TIME ZONE 'UTC', 'YYYY/MM/DD') FROM lava_scheduler_app_testjob
WHERE description LIKE '{MARK} %'
ORDER BY substr(description, {len(MARK) + 2})::integer DESC LIMIT :count
"""
WORDS = (
    "usb eth0 mmc0 pci clk regulator gpio spi0 i2c systemd kernel driver firmware device bridge "
    "probe registered failed deferred enabled using loaded mounted started reached target memory "
    "cache node region reserved interrupt timer cpu thermal zone link up down full duplex speed "
    "mode version revision bus port host controller irq channel dma init module queue buffer"
).split()
# So many different things are said in logs that gzip makes them about 7.5 times smaller.
SENTENCES = tuple(
    " ".join(dice.choices(WORDS, k=2 + int(dice.random() * 12)))
    for dice in [random.Random(0)]
    for _ in range(420)
)
INDEX_ENTRY = struct.Struct("=Q")  # lava_scheduler_app/logutils.py: where each line begins


@dataclass(frozen=True)
class Day:
    """The jobs of one day, and the directory for them."""

    place: Path
    jobs: tuple[int, ...]


def fill(name: str, jobs: str, days: str) -> dict[str, int]:
    """Add what is missing; how much there is."""
    there = int(ask(name, COUNT))
    if there < int(jobs):
        add_jobs(name, there + 1, int(jobs), int(jobs), late=3)
    made = add_media(name, int(days) * JOBS_A_DAY)
    ask(name, "VACUUM ANALYZE")
    return {"jobs": int(ask(name, COUNT)), "days": made, "database": size(name)}


def change(name: str) -> dict[str, int]:
    """A hundredth more jobs on two new days, and old ones touched: rows, and a log each day."""
    there = int(ask(name, COUNT))
    more = max(there // 100, 2 * JOBS_A_DAY)
    add_jobs(name, there + 1, there + more, there + more, late=1, a_day=-(-more // 2))
    ask(name, TOUCH)
    days = sorted((media(name) / "job-output").glob("*/*/*"))
    for day in days[:: -(-len(days) // OLD)][:OLD] + days[-RECENT:]:
        touch(sorted(day.iterdir())[0] / "output.yaml")
    for day in of_days(name, more):
        make(name, replace(day, jobs=day.jobs[:JOBS_A_DAY]))
    return {"jobs": more}


def jobs(name: str) -> list[int]:
    """The numbers of jobs whose logs there are."""
    return [int(one.name) for one in (media(name) / "job-output").glob("*/*/*/*")]


def add_jobs(
    name: str, first: int, last: int, count: int, late: int, a_day: int = JOBS_A_DAY
) -> None:
    """Add jobs by their numbers among all; the last of them was `late` days ago."""
    numbers = {"first": first, "last": last, "count": count, "late": late, "a_day": a_day}
    ask(name, GENTLY + ADD_JOBS + ADD_RESULTS, **numbers)


def add_media(name: str, count: int) -> int:
    """Make media for the newest jobs, two days at once; for how many days there are any now."""
    days = list(of_days(name, count))
    missing = [day for day in days if not (day.place / str(day.jobs[-1])).exists()]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(make, [name] * len(missing), missing))
    return len(days)


def of_days(name: str, count: int) -> Iterator[Day]:
    """The newest jobs by their days."""
    rows = [line.split("|") for line in ask(name, NEWEST, count=count).splitlines()]
    for day, group in groupby(rows, key=lambda row: row[1]):
        yield Day(media(name) / "job-output" / day, tuple(int(number) for number, _ in group))


def make(name: str, day: Day) -> None:
    """Make the media of a day, as the instance's user owns them."""
    owner = pwd.getpwnam(f"lava-{name}")
    for directory in reversed(day.place.relative_to(media(name)).parents[:-1]):
        own(media(name) / directory, owner)
    own(day.place, owner)
    for position, number in enumerate(day.jobs):
        more = position < FILES_A_DAY - 3 * JOBS_A_DAY
        make_job(day.place / str(number), number, owner, more)


def make_job(place: Path, number: int, owner: pwd.struct_passwd, more: bool) -> None:
    dice = random.Random(number)
    began = datetime(2026, 1, 1) + timedelta(minutes=number)
    lines = log(dice, began, int(BYTES_OF_A_LOG * dice.choice(SPREAD)))
    starts, at = [0], 0
    for line in lines:
        at += len(line)
        starts.append(at)
    own(place, owner)
    texts = {
        "output.yaml": "".join(lines).encode(),
        "output.idx": b"".join(map(INDEX_ENTRY.pack, starts)),
        "job.yaml": f"job_name: {MARK} {number}\ntoken: {dice.getrandbits(128):032x}\n".encode(),
    }
    if more:
        own(place / "metadata", owner)
        texts["metadata/lava-0.yaml"] = f"extra: {dice.getrandbits(64):x}\n".encode() * 20
    for path, text in texts.items():
        (place / path).write_bytes(text)
        os.chown(place / path, owner.pw_uid, owner.pw_gid)


def log(dice: random.Random, began: datetime, size: int) -> list[str]:
    """Lines as lava-run sends them, until they have that many bytes."""
    minute = began.isoformat()[:-2]
    lines, length, seconds, chance = [], 0, 0.0, dice.random
    while length < size:
        seconds += chance() / 20
        said = SENTENCES[int(chance() * len(SENTENCES))]
        at = f"{minute}{seconds % 60:09.6f}"
        line = f'- {{"dt": "{at}", "lvl": "target", "msg": "[{seconds:12.6f}] {said}"}}\n'
        lines.append(line)
        length += len(line)
    return lines


def touch(path: Path) -> None:
    """Add a line to a log, as its owner would."""
    with path.open("a") as file:
        file.write('- {"dt": "2026-01-01T00:00:00.000000", "lvl": "info", "msg": "again"}\n')


def own(directory: Path, owner: pwd.struct_passwd) -> None:
    """Make a directory for its owner."""
    if not directory.exists():
        directory.mkdir(mode=0o755, exist_ok=True)
        os.chown(directory, owner.pw_uid, owner.pw_gid)


def media(name: str) -> Path:
    return INSTANCES / name / "var/lib/lava-server/media"


def size(name: str) -> int:
    return int(ask(name, f"SELECT pg_database_size('lava-{name}')"))


def ask(name: str, query: str, **numbers: int) -> str:
    """What the database answers to the instance's queries."""
    variables = [f"--set={key}={value}" for key, value in numbers.items()]
    words = ["psql", "-XqAt", "--set=ON_ERROR_STOP=1", *variables, f"lava-{name}"]
    ended = subprocess.run(
        ["runuser", "-u", "postgres", "--", *words],
        input=query,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd="/",
    )
    return ended.stdout.strip()


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    json.dump({one.__name__: one for one in (fill, change, jobs)}[verb](*words), sys.stdout)
