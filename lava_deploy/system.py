"""The door to this machine: its commands and its files. No other module starts a process."""

import contextlib
import fcntl
import grp
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lava_deploy import processes
from lava_deploy.errors import NO_SUCH_COMMAND, CommandFailed

# What commands get: nothing of the admin's shell but the way to the network.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# sh(1): the status of a command that a signal ended is this and the signal's number.
SIGNALLED = 128
PASSED_ON = frozenset(
    [
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
    ]
)


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


class System:
    """This machine. Files are written whole or not at all; commands are lists."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is the admin's; of it, commands see the proxies and certificates only."""
        passed_on = {k: v for k, v in (environment or os.environ).items() if k in PASSED_ON}
        self._environment = {
            "PATH": SEARCH_PATH,
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
            **passed_on,
        }

    # Commands

    def run(
        self,
        command: Sequence[str | Path],
        *,
        stdin: str = "",
        user: str = "",
        environment: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Finished:
        """Run a command to its end, as another user if one is named.

        Secrets go through `stdin` or `environment`, never into `command`. Raises CommandFailed for
        a status other than 0 unless `check` is false; a timeout in seconds counts as a failure
        with status 124, as of timeout(1).
        """
        words = [str(word) for word in command]
        try:
            ended = subprocess.run(
                processes.as_user(words, user),
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                env={**self._environment, **(environment or {})},
                cwd="/",
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as expired:
            raise CommandFailed(words, 124, f"no end after {timeout:g} seconds") from expired
        except FileNotFoundError as missing:
            raise CommandFailed(words, NO_SUCH_COMMAND, "there is no such command") from missing
        if check and ended.returncode != 0:
            raise CommandFailed(words, ended.returncode, ended.stderr or ended.stdout)
        return Finished(ended.returncode, ended.stdout, ended.stderr)

    def meanwhile(
        self, words: Sequence[str], stdin: str, environment: Mapping[str, str]
    ) -> contextlib.AbstractContextManager[None]:
        """Run a command while the block runs. Raises CommandFailed at the block's end."""
        return processes.meanwhile(words, stdin, {**self._environment, **environment})

    def follow(
        self,
        command: Sequence[str | Path],
        line: Callable[[str], None],
        *,
        user: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command and hand over each line of its output as it comes; return its status."""
        words = [str(word) for word in command]
        with subprocess.Popen(
            processes.as_user(words, user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**self._environment, **(environment or {})},
            cwd="/",
        ) as running:
            assert running.stdout is not None
            try:
                for text in running.stdout:
                    line(text.rstrip("\n"))
            except BaseException:
                running.terminate()
                raise
        return running.returncode

    def lines(
        self, command: Sequence[str | Path], patience: float | None = None
    ) -> Generator[str | None]:
        """The lines of a command's output as they come, and None when none came for some seconds.

        Who has enough closes the iterator, which ends the command. Raises CommandFailed for a
        status other than 0.
        """
        words = [str(word) for word in command]
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd="/",
            process_group=0,  # Ctrl-C is for whoever reads
        ) as running:
            assert running.stdout is not None
            try:
                yield from processes.lines(running.stdout.fileno(), patience)
            except BaseException:
                running.terminate()
                raise
        if running.returncode:
            raise CommandFailed(words, running.returncode, "")

    def attach(
        self,
        command: Sequence[str | Path],
        *,
        user: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command on the admin's own terminal, input and output; return its status.

        Ctrl-C is for the command, which the terminal sends it to as well: a shell takes it for the
        end of a line. A command that a signal ends has the status that a shell would give it.
        """
        words = [str(word) for word in command]
        more = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
        # what is handled here the command inherits as its default, not so what is ignored
        before = signal.signal(signal.SIGINT, processes.leave_to_command)
        try:
            status = subprocess.run(
                processes.as_user(words, user),
                env={**self._environment, **more, **(environment or {})},
                cwd="/",
            ).returncode
        finally:
            signal.signal(signal.SIGINT, before)
        return status if status >= 0 else SIGNALLED - status

    def has_ended(self, process: int, seconds: float) -> bool:
        """Wait until a process is gone; false when it is still there after that time."""
        return self.wait_until(lambda: not os.path.exists(f"/proc/{process}"), seconds)

    def wait_until(self, ask: Callable[[], bool], seconds: float) -> bool:
        """Wait until the answer is yes; false when it is still no after that time."""
        limit = time.monotonic() + seconds
        while not ask():
            if time.monotonic() > limit:
                return False
            time.sleep(0.05)
        return True

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """In the block, and in commands begun in it, others get processor and disk first."""
        before, me = os.getpriority(os.PRIO_PROCESS, 0), str(os.getpid())
        os.setpriority(os.PRIO_PROCESS, 0, 19)
        self.run(["ionice", "--class", "idle", "--pid", me], check=False)
        try:
            yield
        finally:
            self.run(["ionice", "--class", "none", "--pid", me], check=False)
            os.setpriority(os.PRIO_PROCESS, 0, before)

    # Looking at files

    def exists(self, path: Path) -> bool:
        """Whether there is anything at a path, a link to nowhere included."""
        return os.path.lexists(path)

    def is_newer(self, path: Path, than: Path) -> bool:
        """Whether a file, or a process in /proc, is younger than a file; or that is not there."""
        return not than.exists() or path.stat().st_mtime > than.stat().st_mtime

    def is_directory(self, path: Path) -> bool:
        return path.is_dir()

    def read(self, path: Path) -> str:
        """The text of a file. Raises FileNotFoundError."""
        return path.read_text(encoding="utf-8")

    def texts(self, paths: Iterable[Path]) -> dict[Path, str | None]:
        """The texts of files, None for those that are not there."""
        return {path: self.read(path) if self.exists(path) else None for path in paths}

    def names(self, directory: Path) -> list[str]:
        """What is in a directory, in order; nothing if there is no such directory."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(directory))
        return []

    def target(self, link: Path) -> str:
        """Where a symbolic link points, '' if there is none."""
        with contextlib.suppress(OSError):
            return os.readlink(link)
        return ""

    def statuses(self, tree: Path) -> dict[str, os.stat_result]:
        """What stat(2) says of a directory, as `.`, and of all below it, by their paths in it.

        Links are told of, not followed; what vanishes meanwhile is left out.
        """
        found = {".": os.stat(tree)}
        waiting = [("", str(tree))]
        while waiting:
            prefix, directory = waiting.pop()
            with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        found[prefix + entry.name] = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{prefix}{entry.name}/", entry.path))
        return found

    def size(self, path: Path) -> int:
        """Bytes that a file or a tree takes on disk."""
        if not self.exists(path):
            return 0
        said = self.run(["du", "--summarize", "--block-size=1", "--", path], check=False).stdout
        return int(said.split()[0]) if said.split() else 0

    def free_space(self, path: Path) -> int:
        """Bytes free for root where a path is, or would be."""
        while not path.exists():
            path = path.parent
        return shutil.disk_usage(path).free

    def free_memory(self) -> int:
        """Bytes of memory that programs can still get, as the kernel estimates."""
        words = Path("/proc/meminfo").read_text().split()
        return int(words[words.index("MemAvailable:") + 1]) * 1024

    # Changing files

    def write(
        self, path: Path, text: str, mode: int = 0o644, owner: str = "root", group: str = "root"
    ) -> None:
        """Replace a file in one step; at no moment it is readable to more than `mode` says."""
        self._remove_torn(path)
        prefix = f"{_beside(path)}{os.getpid()}-"
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=prefix)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchown(file.fileno(), _uid(owner), _gid(group))
                os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            raise

    def flush(self, path: Path) -> None:
        """Return once a file, or the names in a directory, are on the disk: fsync(2)."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def append(self, path: Path, line: str) -> None:
        """Add a line to a log, making the file (0640) and its directory (0755) when needed."""
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        with open(handle, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def make_directory(
        self, path: Path, mode: int = 0o755, owner: str = "root", group: str = "root"
    ) -> None:
        """Make a directory, or give the one there is this mode and owner.

        Parents that are missing are made for root, 0755.
        """
        if not path.is_dir():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)  # by now somebody else may have made it
        os.chown(path, _uid(owner), _gid(group))
        path.chmod(mode)

    def link(self, path: Path, target: str | Path) -> None:
        """Make a symbolic link, or turn the one there is, in one step."""
        beside = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        beside.symlink_to(target)
        beside.replace(path)

    @contextlib.contextmanager
    def temporary_directory(self, parent: Path | None = None) -> Iterator[Path]:
        """A directory that only root may enter, gone with all in it when the block ends."""
        with tempfile.TemporaryDirectory(dir=parent, prefix=".lava-deploy-") as directory:
            yield Path(directory)

    def rename(self, path: Path, to: Path) -> None:
        """Rename within one file system, replacing a file."""
        path.replace(to)

    def copy_linked(self, tree: Path, to: Path) -> None:
        """Copy a tree as hard links: new directories, same files; on another disk, as copies."""
        linked = self.run(["cp", "--archive", "--link", "--", tree, to], check=False)
        if linked.status != 0:
            self.remove_tree(to)
            self.run(["cp", "--archive", "--", tree, to])

    @contextlib.contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Keep all others that lock this file waiting until the block ends."""
        self.make_directory(path.parent)
        with open(path, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def remove(self, path: Path) -> None:
        """Remove a file or a link, if there is one, and what killed runs half wrote of it."""
        self._remove_torn(path)
        path.unlink(missing_ok=True)

    def _remove_torn(self, path: Path) -> None:
        """Remove what runs that were killed have half written; others may be writing the file."""
        for name in self.names(path.parent):
            if name.startswith(_beside(path)):
                process = name.removeprefix(_beside(path)).partition("-")[0]
                if not os.path.exists(f"/proc/{process}"):
                    (path.parent / name).unlink(missing_ok=True)

    def remove_directory(self, path: Path) -> None:
        """Remove a directory if there is one and it is empty."""
        with contextlib.suppress(FileNotFoundError, OSError):
            path.rmdir()

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all in it, if there is one; never follows a link."""
        if path.is_symlink():
            raise NotADirectoryError(f"{path} is a link, not a directory")
        if path.exists():
            shutil.rmtree(path)


def _beside(path: Path) -> str:
    """How the name of a file that is being written begins, before the number of its process."""
    return f".{path.name}.writing-"


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid
