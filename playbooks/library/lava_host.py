#!/usr/bin/python3
"""Ansible module: the directories, files and services that instances of LAVA share on a host.

One module instead of twenty tasks, as each task costs half a second and more. What it makes or
changes for the first time goes into a record, from which `undo` takes it back.
"""

import json
import os
import re
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: lava_host
short_description: Directories, files and services that instances of LAVA share on a host
description:
  - Makes directories and files, enables parts of Apache, and has PostgreSQL, Apache and tftpd-hpa
    running, with systemd as process 1 or without.
options:
  record:
    description: File that remembers what was made, and what was there before.
    type: path
    required: true
  directories:
    description: Directories to make, owned by root, mode 0755; parents are made and recorded too.
    type: list
    elements: path
    default: []
  assignments:
    description: Values to set in files of shell assignments; the rest of each file stays.
    type: dict
    default: {}
  files:
    description: Whole files, path to text.
    type: dict
    default: {}
  apache_modules:
    description: Modules of Apache to enable.
    type: list
    elements: str
    default: []
  apache_configurations:
    description: Files of conf-available to enable, without suffix.
    type: list
    elements: str
    default: []
  undo:
    description: Take back all that the record has.
    type: bool
    default: false
author: lava-deploy
"""
EXAMPLES = """
- lava_host:
    record: /var/lib/lava-deploy/host.json
    directories: [/srv/lava]
"""
RETURN = """
changes:
  description: What was changed, in words.
  returned: always
  type: list
"""

APACHE = "/etc/apache2"
APACHE_STATE = "/var/lib/apache2"
TFTP = "/etc/default/tftpd-hpa"
# which service reads the files at a path
SERVES = {APACHE: "apache2", TFTP: "tftpd-hpa", "/etc/exports.d/": "nfs"}


def main():
    """Entry point of Ansible."""
    module = AnsibleModule(
        {
            "record": {"type": "path", "required": True},
            "directories": {"type": "list", "elements": "path", "default": []},
            "assignments": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
            "apache_modules": {"type": "list", "elements": "str", "default": []},
            "apache_configurations": {"type": "list", "elements": "str", "default": []},
            "undo": {"type": "bool", "default": False},
        }
    )
    host = Host(module)
    if module.params["undo"]:
        host.undo()
    else:
        host.make()
    module.exit_json(changed=bool(host.changes), changes=host.changes)


class Host:
    """This machine, and the record of what was done to it."""

    def __init__(self, module):
        self.module = module
        self.changes = []
        self.systemd = os.path.isdir("/run/systemd/system")
        self.path = module.params["record"]
        self.record = {"directories": [], "files": {}, "apache": [], "started": [], "untold": []}
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as file:
                self.record.update(json.load(file))

    # Making

    def make(self):
        """Bring the host to what the parameters say."""
        wanted = self.module.params
        for path in [os.path.dirname(self.path), *wanted["directories"]]:
            self.directory(path)
        for path, text in wanted["files"].items():
            self.directory(os.path.dirname(path))
            self.file(path, text)
        for path, values in wanted["assignments"].items():
            self.file(path, assigned(read(path) or "", values))
        for name in wanted["apache_modules"]:
            self.enable("mods", name)
        for name in wanted["apache_configurations"]:
            self.enable("conf", name)
        self.serve()

    def directory(self, path):
        """Make a directory and its parents; those there are stay as they are."""
        if os.path.isdir(path):
            return
        self.directory(os.path.dirname(path))
        self.remember("directories", path)
        os.mkdir(path)
        os.chmod(path, 0o755)
        self.changes.append(f"made {path}")

    def file(self, path, text):
        """Write a file; what it was before we first did is remembered."""
        before = read(path)
        if before == text:
            return
        ours = self.record["files"].get(path)
        former = ours["former"] if ours else before
        self.record["files"][path] = {"former": former, "written": text}
        self.remember("untold", next((SERVES[part] for part in SERVES if part in path), path))
        write(path, text)
        self.changes.append(f"wrote {path}")

    def enable(self, kind, name):
        """Enable a module (`mods`) or a configuration (`conf`) of Apache."""
        suffix = "load" if kind == "mods" else "conf"
        if os.path.lexists(f"{APACHE}/{kind}-enabled/{name}.{suffix}"):
            return
        verb, folder = {"mods": ("mod", "module"), "conf": ("conf", "conf")}[kind]
        self.remember("apache", [verb, name])
        self.remember("untold", "apache2")
        # where Debian's a2enmod notes, at first use, what was asked for
        for notes in (
            f"{APACHE_STATE}/{folder}/{what}_by_admin" for what in ("enabled", "disabled")
        ):
            if not os.path.isdir(notes):
                self.remember("directories", notes)
        self.run(f"a2en{verb}", "--quiet", name)
        self.changes.append(f"enabled {name} in Apache")

    def serve(self):
        """Have Postgres, Apache and the TFTP server running with what they were told."""
        self.serve_postgres()
        self.service("apache2", self.apache_runs())
        self.service("tftpd-hpa", runs("in.tftpd"))
        if "nfs" in self.record["untold"]:
            self.run("exportfs", "-ra")
        self.record["untold"] = []
        self.save()

    def serve_postgres(self):
        """Start the clusters that Debian would start at boot, if none is up."""
        clusters = [line.split() for line in self.run("pg_lsclusters", "--no-header").splitlines()]
        if not clusters:
            self.module.fail_json(
                msg="Postgres has no cluster; "
                "`pg_createcluster --locale C.UTF-8 VERSION main` makes one"
            )
        if any(fields[3].startswith("online") for fields in clusters):
            return
        for version, name, *_ in clusters:
            start = read(f"/etc/postgresql/{version}/{name}/start.conf") or "auto"
            if "auto" in start.split():
                self.remember("started", f"{version}/{name}")
                self.run("pg_ctlcluster", version, name, "start")
                self.changes.append(f"started Postgres {version}/{name}")

    def service(self, name, running):
        """Start a service, or have it take up what changed, if need be before an earlier kill."""
        if not running:
            self.remember("started", name)
            self.control(name, "start")
            self.changes.append(f"started {name}")
        elif name in self.record["untold"]:
            gently = name == "apache2" and not (self.systemd and self.is_unused())
            self.control(name, "reload" if gently else "restart")
            self.changes.append(f"told {name} of the changes")

    def is_unused(self):
        """Whether Apache serves nothing but Debian's own page; some limits need a real restart."""
        return set(os.listdir(f"{APACHE}/sites-enabled")) <= {"000-default.conf"}

    def control(self, name, verb):
        """Start, stop, reload or restart a service with what this host has for it."""
        if self.systemd:
            self.run("systemctl", verb, name)
            return
        # Made at boot where there is one; Debian's scripts for these services count on it.
        os.makedirs("/run/lock", exist_ok=True)
        if name == "apache2":
            if verb != "stop":
                self.run("apache2ctl", "configtest")
            self.run("apache2ctl", {"reload": "graceful"}.get(verb, verb))
        else:
            self.run(f"/etc/init.d/{name}", verb)

    def apache_runs(self):
        """By its own file: `apache2` may also run in a container that this host sees into."""
        identity = (read("/run/apache2/apache2.pid") or "").strip()
        return bool(identity) and (read(f"/proc/{identity}/comm") or "").strip() == "apache2"

    # Undoing

    def undo(self):
        """Take back what the record has, last first; what others have changed since stays."""
        for verb, name in reversed(self.record["apache"]):
            if os.path.exists(f"/usr/sbin/a2dis{verb}"):
                self.disable(verb, name)
        for path, file in self.record["files"].items():
            self.put_back(path, **file)
        self.rest()
        if os.path.exists(self.path):
            os.unlink(self.path)
        for path in reversed(self.record["directories"]):
            if os.path.isdir(path) and not os.listdir(path):
                os.rmdir(path)
                self.changes.append(f"removed {path}")

    def disable(self, verb, name):
        """Disable a part of Apache, unless a site of others has come to need it."""
        self.run(f"a2dis{verb}", "--quiet", "--purge", "--force", name)
        if self.module.run_command(["apache2ctl", "configtest"])[0] == 0:
            self.changes.append(f"disabled {name} in Apache")
        else:
            self.run(f"a2en{verb}", "--quiet", name)

    def put_back(self, path, former, written):
        """Give a file its former text; one that somebody has edited since stays as it is."""
        if read(path) != written:
            return
        if former is None:
            os.unlink(path)
        else:
            write(path, former)
        self.changes.append(f"put back {path}")

    def rest(self):
        """Stop what was started by us; what had been running goes on with its former files."""
        started = self.record["started"]
        for name in reversed(started):
            self.stop(name)
        told = {SERVES[part] for path in self.record["files"] for part in SERVES if part in path}
        for name, running in ("apache2", self.apache_runs()), ("tftpd-hpa", runs("in.tftpd")):
            if running and name in told and name not in started:
                self.control(name, "reload" if name == "apache2" else "restart")

    def stop(self, name):
        """Stop a service or a cluster of Postgres; no matter if it does not run any more."""
        if "/" in name:
            self.module.run_command(["pg_ctlcluster", *name.split("/"), "stop"])
        elif os.path.exists(f"/etc/init.d/{name}"):
            self.control(name, "stop")
        self.changes.append(f"stopped {name}")

    # The record, and commands

    def remember(self, kind, what):
        """Put down something before it is made, so that a killed run can be undone."""
        if what not in self.record[kind]:
            self.record[kind].append(what)
        self.save()

    def save(self):
        """Write the record once its directory is there."""
        if os.path.isdir(os.path.dirname(self.path)):
            write(self.path, json.dumps(self.record, indent=1))

    def run(self, *command):
        """A command's output; the module fails with what a failing one said."""
        status, stdout, stderr = self.module.run_command(list(command))
        if status != 0:
            said = (stderr or stdout).strip()
            self.module.fail_json(msg=f"`{' '.join(command)}` ended with status {status}: {said}")
        return stdout


def assigned(text, values):
    """A text of shell assignments with some of its values set."""
    for name, value in values.items():
        line = f'{name}="{value}"'
        text, found = re.subn(rf"(?m)^{name}=.*$", lambda _, line=line: line, text)
        if not found:
            text = f"{text}{line}\n"
    return text


def runs(program):
    """Whether a process of that program runs, seen by its name."""
    processes = [entry for entry in os.listdir("/proc") if entry.isdigit()]
    return any((read(f"/proc/{entry}/comm") or "").strip() == program for entry in processes)


def read(path):
    """The text of a file, None if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None


def write(path, text):
    """Replace a file in one step; mode 0644."""
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".lava-deploy-")
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(handle, 0o644)
        file.flush()
        os.fsync(handle)
    os.replace(beside, path)


if __name__ == "__main__":
    main()
