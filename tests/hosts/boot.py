"""The first process of a test host, until it becomes the host's own init.

    boot.py HOST.json

Started by `unshare` as process 1 of new namespaces, it lays out /proc, /sys, /dev and /run on the
host's root, makes that the root, gives up what a container may not do, and hands over.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

MNT_DETACH = 0x2
MS_REC, MS_SHARED = 0x4000, 0x100000
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "fd/0",
    "stdout": "fd/1",
    "stderr": "fd/2",
    "console": "/dev/null",
}
FORBIDDEN = (
    "sys_module",
    "sys_time",
    "sys_boot",
    "syslog",
    "sys_rawio",
    "mac_admin",
    "mac_override",
    "wake_alarm",
    "audit_control",
)
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INITS = {
    "systemd": ["/lib/systemd/systemd", "--log-target=journal", "--show-status=no"],
    "plain": ["/usr/bin/tini", "--", "/usr/sbin/sshd", "-D", "-e"],
}


def mount(kind: str, options: str, at: Path) -> None:
    """Mount a virtual file system."""
    subprocess.run(["mount", "-t", kind, "-o", options, kind, str(at)], check=True)


def bind(source: str | Path, at: Path) -> None:
    """Make a file or directory of this machine appear in the host; it need not exist there."""
    if Path(source).is_dir():
        at.mkdir(parents=True, exist_ok=True)
    else:
        at.parent.mkdir(parents=True, exist_ok=True)
        at.touch()
    subprocess.run(["mount", "--bind", str(source), str(at)], check=True)


def lay_out(root: Path, host: dict) -> None:
    """Mount what every system expects below its root."""
    mount("proc", "nosuid,nodev,noexec", root / "proc")
    bind(root / "proc/sys", root / "proc/sys")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(root / "proc/sys")], check=True)
    if (root / "proc/sysrq-trigger").exists():
        bind("/dev/null", root / "proc/sysrq-trigger")
    mount("sysfs", "ro,nosuid,nodev,noexec", root / "sys")  # read-only: systemd starts no udev
    writable = "rw" if host["init"] == "systemd" else "ro"
    mount("cgroup2", f"{writable},nosuid,nodev,noexec", root / "sys/fs/cgroup")
    lay_out_devices(root / "dev", host["devices"])
    mount("tmpfs", "mode=755,nosuid,nodev", root / "run")
    for inside, outside in host["shares"].items():
        bind(outside, root / inside.lstrip("/"))


def lay_out_devices(directory: Path, more: list[str]) -> None:
    """A /dev with only harmless devices, and those of `more` that this machine has."""
    mount("tmpfs", "mode=755,nosuid,strictatime", directory)
    for device in (*(f"/dev/{name}" for name in DEVICES), *filter(os.path.exists, more)):
        bind(device, directory / device.removeprefix("/dev/"))
    for name in ("pts", "shm", "mqueue"):
        (directory / name).mkdir()
    mount("devpts", "newinstance,ptmxmode=0666,mode=620,gid=5,nosuid,noexec", directory / "pts")
    mount("tmpfs", "mode=1777,nosuid,nodev", directory / "shm")
    for name, target in DEVICE_LINKS.items():
        (directory / name).symlink_to(target)


def change_root(root: Path) -> None:
    """Make the host's root the root of this process, and let go of the machine's."""
    old = root / ".old"
    old.mkdir(exist_ok=True)
    os.chdir(root)
    subprocess.run(["pivot_root", ".", ".old"], check=True)
    os.chdir("/")
    # From here on the commands are the host's, and a bare one has neither mount nor umount.
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.umount2(b"/.old", MNT_DETACH))
    os.rmdir("/.old")
    # systemd leaves this to whoever starts it; LoadCredential= and others silently fail without.
    _checked(libc.mount(None, b"/", None, MS_REC | MS_SHARED, None))


def _checked(result: int) -> None:
    """Raise the error of a C function that returned one."""
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def hand_over(init: str) -> None:
    """Become the host's init, without the rights a container has not."""
    environment = {"LANG": "C.UTF-8", "PATH": SEARCH_PATH}
    if init == "systemd":
        environment["container"] = "test-host"
    else:
        os.mkdir("/run/sshd", 0o755)
        environment["HOME"] = "/root"
    bounds = "--bounding-set=" + ",".join(f"-{right}" for right in FORBIDDEN)
    os.execve("/usr/bin/setpriv", ["setpriv", bounds, *INITS[init]], environment)


def main(description: str) -> None:
    """Boot the host a file describes."""
    host = json.loads(Path(description).read_text())
    root = Path(host["root"])
    socket.sethostname(host["name"])
    os.umask(0o022)
    lay_out(root, host)
    change_root(root)
    hand_over(host["init"])


if __name__ == "__main__":
    main(sys.argv[1])
