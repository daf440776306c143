#!/usr/bin/env python3
"""Watches a command from inside its host; runs as root, the answers are JSON.

watching.py command WORDS...           its seconds, and the most memory of all its processes at once
watching.py pages NAME SECONDS         milliseconds of pages of jobs, one after the other
watching.py pages NAME 0 WORDS...      the same, for as long as a command runs
watching.py forget NAME                drops what a restore has kept of the state before

Memory is the sum of proportional set sizes: of what processes share, each has its part. Those of a
command are the ones that descend from it; Postgres does its work in processes of its own.
"""

import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import filling

BETWEEN_SAMPLES = 0.1
BETWEEN_PAGES = 0.02


def command(*words: str) -> dict[str, float]:
    """Run a command to its end; what it says goes to the standard error."""
    begun, most = time.monotonic(), 0
    with start(words) as running:
        while not has_ended(running, BETWEEN_SAMPLES):
            most = max(most, memory(running.pid))
        spent = time.monotonic() - begun
    return {"seconds": spent, "memory": most}


def pages(name: str, seconds: str, *words: str) -> list[float]:
    """Ask for one page after the other, on one connection; a pause leaves others their turn."""
    numbers = filling.jobs(name)
    dice = random.Random(len(numbers))
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=60)
    spent = []
    with start(words or ["sleep", seconds]) as running:
        while not has_ended(running, BETWEEN_PAGES):
            spent.append(page(connection, name, dice.choice(numbers)))
    return spent


def page(connection: http.client.HTTPConnection, name: str, number: int) -> float:
    """Milliseconds of the page of a job."""
    begun = time.monotonic()
    connection.request("GET", f"/scheduler/job/{number}", headers={"Host": f"{name}.localhost"})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == http.client.OK and str(number).encode() in text, answer.status
    return (time.monotonic() - begun) * 1000


def forget(name: str) -> None:
    """Have the next restore find as little as the first one."""
    query = "SELECT datname FROM pg_database WHERE datname LIKE 'lava-{}\\_before\\_%'"
    for database in filling.ask(name, query.format(name)).split():
        filling.ask(name, f'DROP DATABASE "{database}"')
    for place in (filling.INSTANCES / name / "before", filling.media(name) / ".lava-deploy"):
        shutil.rmtree(place, ignore_errors=True)


def start(words: Sequence[str]) -> subprocess.Popen:
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def has_ended(running: subprocess.Popen, limit: float) -> bool:
    """Wait that long for its end, which has to be a good one."""
    try:
        status = running.wait(limit)
    except subprocess.TimeoutExpired:
        return False
    if status != 0:
        sys.exit(f"{running.args} ended with {status}")
    return True


def memory(parent: int) -> int:
    """Bytes of a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for process in os.listdir("/proc"):
        if process.isdecimal():
            children.setdefault(parent_of(process), []).append(int(process))
    waiting, whole = [parent], 0
    while waiting:
        process = waiting.pop()
        whole += size_of(process)
        waiting += children.get(process, [])
    return whole


def parent_of(process: str) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return 0


def size_of(process: int) -> int:
    try:
        rolled = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0
    return (
        sum(int(line.split()[1]) for line in rolled.splitlines() if line.startswith("Pss:")) * 1024
    )


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    json.dump({one.__name__: one for one in (command, pages, forget)}[verb](*words), sys.stdout)
