"""Git repositories in the cache: copies of others, and what can be told by them."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy.errors import NO_SUCH_COMMAND, CommandFailed, UnknownRevision, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lava_deploy.system import System

# Seconds that a server has to tell its branches and tags, and to send all of its history.
ANSWER, TRANSFER = 10, 1800
# A server that sends less than a byte a second for this time has stopped answering. While it
# still counts, git's servers send 5 bytes every 5 seconds.
SILENCE = 30
LIMITS = ("-c", "http.lowSpeedLimit=1", "-c", f"http.lowSpeedTime={SILENCE}", "-c", "gc.auto=0")
ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=10",
}
EVERYTHING = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
# git(1) serves another user's repository only if told that it may, and tells the process that
# serves it nothing of its own settings.
SERVE = "--upload-pack=git -c 'safe.directory=*' upload-pack"
# For git, LAVA's lava_common/version.py: describe leaves out tags that are only names.
DESCRIBE = ("describe", "--match=[0-9]*")
DESCRIBED = re.compile(r"(?P<tag>.+)-(?P<commits>\d+)-g(?P<hash>[0-9a-f]+)")


@dataclass(frozen=True)
class Answer:
    """What a repository has: commits by names such as `refs/heads/master`; why not, or ''."""

    commits: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""


def place(cache: Path, url: str) -> Path:
    """Where the copy of a repository or a working tree is."""
    return cache / "git" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}.git"


def is_local(url: str) -> bool:
    return url.startswith(("/", "file:"))


def ask(system: System, cache: Path, url: str, age: float) -> Answer:
    """The branches and tags of a repository, as it answered at most `age` seconds ago or now.

    Where it does not answer, what it said before counts, and the failure is kept as long.
    """
    kept = place(cache, url).with_suffix(".refs")
    with system.locked(kept.with_suffix(".lock")):
        said = system.read(kept) if system.exists(kept) else "0\n"
        asked = float(said.partition("\n")[0].partition(" ")[0])
        if not 0 <= time.time() - asked < (0 if is_local(url) else age):
            said = _asked_now(system, url, said)
            system.write(kept, said)
    first, _, listing = said.partition("\n")
    lines = (line.split("\t") for line in listing.splitlines())
    return Answer({name: commit for commit, name in lines}, first.partition(" ")[2])


def _asked_now(system: System, url: str, former: str) -> str:
    """The time with the failure, if there is one; then a line for each name."""
    now, failure, listing = int(time.time()), "", former.partition("\n")[2]
    try:
        command = ["git", *LIMITS, "ls-remote", *_serving(url), "--", url]
        ended = system.run(command, environment=ENVIRONMENT, check=False, timeout=ANSWER)
        if ended.status == 0:
            listing = ended.stdout
        else:
            failure = _failure(url, ended.stderr)
    except CommandFailed as failed:
        failure = f"{url}: {_unanswered(failed, ANSWER)}"
        if failed.status == NO_SUCH_COMMAND:  # git may be there in a minute
            now = 0
    return f"{now} {failure}\n{listing}"


def obtain(
    system: System, cache: Path, url: str, commit: str, progress: Callable[[str], None]
) -> Path:
    """A copy of a repository that has a commit, which may be abbreviated.

    Raises Unreachable, and UnknownRevision when there is no such commit.
    """
    copy = place(cache, url)
    with system.locked(copy.with_suffix(".copying")):
        make(system, copy)
        if has(system, copy, commit):
            return copy
        progress(f"fetching {url}")
        _fetch(system, copy, url, EVERYTHING)
        if not has(system, copy, commit) and len(commit) == 40:
            # no branch has it any more, or not yet: servers give what a merge request has
            _fetch(system, copy, url, [commit])
        if not has(system, copy, commit):
            raise UnknownRevision(f"{url} has no commit {commit}")
    return copy


def make(system: System, repository: Path) -> None:
    """Make an empty repository, unless it is there; whoever calls this keeps others out."""
    system.make_directory(repository)
    run(system, repository, "init", "--quiet", "--bare")
    # Of a git that was killed: nobody else writes here.
    system.run(["find", repository, "-name", "*.lock", "-delete"])


def has(system: System, repository: Path, commit: str) -> bool:
    return bool(resolve(system, repository, f"{commit}^{{commit}}"))


def resolve(system: System, repository: Path, name: str) -> str:
    """The whole hash of an object, '' if there is no such one."""
    command = _command(repository, "rev-parse", "--quiet", "--verify", "--end-of-options", name)
    return system.run(command, environment=ENVIRONMENT, check=False).stdout.strip()


def text(system: System, repository: Path, tree: str, path: str) -> str:
    """A file of a commit or tree, '' if it has no such file."""
    shown = _command(repository, "show", f"{tree}:{path}")
    return system.run(shown, environment=ENVIRONMENT, check=False).stdout


def version(system: System, repository: Path, commit: str) -> str:
    """What LAVA of a commit calls itself. Raises UnknownRevision when no release precedes it."""
    command = _command(repository, *DESCRIBE, commit)
    described = system.run(command, environment=ENVIRONMENT, check=False)
    if described.status != 0:
        raise UnknownRevision(
            f"no release precedes the commit {commit}, so it has no version",
            hint="A repository that has the tags of LAVA's releases tells it.",
        )
    rule = text(system, repository, commit, "lava_common/version.py")
    return version_of(described.stdout.strip(), rule)


def version_of(described: str, rule: str) -> str:
    """What LAVA makes of git's description: `2026.07.dev0028` of `2026.07-28-gd27bcfd`.

    `rule` is the text of lava_common/version.py, as older ones make `2023.01.0028.gd27bcfd` of it.
    Server and worker compare it as an exact text.
    """
    found = DESCRIBED.fullmatch(described)
    if not found:
        return described
    number = f"{int(found['commits']):04}"
    if ".dev{" in rule:
        return f"{found['tag']}.dev{number}"
    return f"{found['tag'].replace('-', '.')}.{number}.g{found['hash']}"


def run(system: System, repository: Path, *words: str | Path) -> str:
    """What a command of git's says about a repository of the cache. Raises CommandFailed."""
    return system.run(_command(repository, *words), environment=ENVIRONMENT).stdout.strip()


def _command(repository: Path, *words: str | Path) -> list[str | Path]:
    return ["git", f"--git-dir={repository}", "-c", "gc.auto=0", *words]


def _fetch(system: System, copy: Path, url: str, names: tuple[str, ...] | list[str]) -> None:
    """Raises Unreachable; what is in the copy stays."""
    # a clone that was cut off somewhere is a source as good as any
    options = ("--quiet", "--no-tags", "--force", "--update-shallow", *_serving(url))
    command = _command(copy, *LIMITS, "fetch", *options, "--", url, *names)
    try:
        ended = system.run(command, environment=ENVIRONMENT, check=False, timeout=TRANSFER)
    except CommandFailed as failed:
        raise Unreachable(f"{url}: {_unanswered(failed, TRANSFER)}") from failed
    if ended.status != 0:
        raise Unreachable(_failure(url, ended.stderr))


def _serving(url: str) -> tuple[str, ...]:
    return (SERVE,) if is_local(url) else ()


def _failure(url: str, said: str) -> str:
    """The repository, and the first error that git names: those that follow come of it."""
    lines = [line for line in said.splitlines() if line and not line.startswith("warning:")]
    reason = re.sub(r"^(fatal|error): ", "", lines[0] if lines else "git gave no reason")
    return reason if url in reason else f"{url}: {reason}"


def _unanswered(failed: CommandFailed, seconds: int) -> str:
    """What the statuses of system.run mean here: no such command, or no end in time."""
    if failed.status == NO_SUCH_COMMAND:
        return "git is not installed; `lava-deploy setup` does that"
    return f"no answer within {seconds} seconds"
