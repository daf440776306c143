"""The commands that the machine in memory knows, each with the options that plans use."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from lava_deploy.errors import CommandFailed
from lava_deploy.system import Finished
from tests.fakes import dumps, lava
from tests.fakes.world import FILE, LINK, Node, World

UNITS = "/etc/systemd/system"
APACHE = "/etc/apache2"
SUPERVISOR = 4711


def run(
    world: World, words: Sequence[str], stdin: str, user: str, environment: Mapping[str, str]
) -> Finished:
    """Run a command. Raises CommandFailed, and AssertionError for one that it does not know."""
    looked = _look(world, words) or dumps.look(world, words)
    if looked is not None:
        return looked
    with world.trouble.change(" ".join(words), CommandFailed(words, 1, "it was made to fail")):
        return Finished(0, _change(world, words, stdin, user, environment), "")


def _look(world: World, words: Sequence[str]) -> Finished | None:
    """What a command says that changes nothing, or never fails; None for any other."""
    match words:
        case ["getent", "passwd", name]:
            return Finished(0 if name in world.users else 2, "", "")
        case ["getent", "group", name]:
            return Finished(0 if name in world.groups else 2, "", "")
        case ["dpkg", "--print-architecture"]:
            return Finished(0, "amd64\n", "")
        case ["dpkg", "--audit"]:
            return Finished(0, "", "")
        case ["dpkg-query", "--show", _]:
            return Finished(0, "".join(f"installed {one}\n" for one in sorted(world.packages)), "")
        case ["apt-get", *options] if "--download-only" in options:
            return Finished(0, "", "")
        case ["pg_lsclusters", "--no-header"]:
            return Finished(0, "15 main 5432 online postgres /var/lib/postgresql/15/main\n", "")
        case ["systemctl", "show", "--property", _, *patterns]:
            units = [one for one in world.running if any(fnmatch(one, each) for each in patterns)]
            return Finished(0, "\n\n".join(map(_shown, units)), "")
        case ["ip", "-json", "route", "show", "default"]:
            return Finished(0, '[{"dst": "default", "dev": "eth0"}]', "")
        case ["qemu-system-x86_64", *_]:
            return Finished(1, "", "could not access KVM kernel module")
        case ["kill", process] if int(process) == SUPERVISOR:
            _end_supervisor(world)
            return Finished(0, "", "")
        case ["hostname"]:
            return Finished(0, "lab\n", "")
        case ["hostname", "--fqdn"]:
            return Finished(0, "lab.example.com\n", "")
        case ["hostname", "-I"]:
            return Finished(0, "10.0.0.7 2001:db8::7 \n", "")
        case ["systemctl", "reset-failed", *_] | ["apache2ctl", "configtest"]:
            return Finished(0, "", "")
    return None


def _change(
    world: World, words: Sequence[str], stdin: str, user: str, environment: Mapping[str, str]
) -> str:
    """Do what a command does; what it says."""
    match words:
        case ["groupadd", "--system", name]:
            _add(words, world.groups, name)
        case ["useradd", "--system", "--gid", group, "--no-create-home", *more] if len(more) == 7:
            if group not in world.groups:
                raise CommandFailed(words, 6, f"group {group} does not exist")
            _add(words, world.users, more[-1])
        case ["userdel", name]:
            _drop(words, world.users, name)
            world.groups.discard(name)
        case ["groupdel", name]:
            _drop(words, world.groups, name)
        case ["systemctl", "reload-or-restart", "apache2"] | ["apache2ctl", "graceful"]:
            world.served = {
                each: world.text(each)
                for kind in ("sites", "conf", "mods")
                for each in world.below(f"{APACHE}/{kind}-enabled")
            }
        case [program, "--quiet", *options, name] if re.fullmatch("a2(en|dis)(site|conf)", program):
            _switch_site(world, words, program, options, name)
        case ["a2enmod", "--quiet", name]:
            _enable_module(world, words, name)
        case ["a2dismod", "--quiet", "--purge", name]:
            _disable_module(world, words, name)
        case ["systemctl", verb, *units]:
            _systemctl(world, words, verb, [one for one in units if one != "--quiet"])
        case [_, "-m", "venv", "--clear", directory]:
            world.put(f"{directory}/bin/pip", "")
        case [pip, "install", "--quiet", "supervisor==4.3.0"] if pip in world.nodes:
            world.put(Path(pip).with_name("supervisord"), "")
        case [program, "-c", configuration] if Path(program).name == "supervisord":
            _start_supervisor(world, words, Path(configuration))
        case [python, "-P", "-m", "lava_site.batch"] if python in world.nodes:
            return lava.manage(world, words, json.loads(stdin), user, environment)
        case ["pg_dump", "--no-owner", "--no-privileges", "--clean", "--if-exists", *place]:
            rows = lava.rows_of(world, words, place, user, environment)
            return json.dumps({key: row for key, row in rows.items() if key != "owner"})
        case ["setpriv", user, *more] if "--pdeathsig=TERM" in more:
            place = [one for one in more if one.startswith("--dbname=")]
            rows = lava.rows_of(world, words, place, user.removeprefix("--reuid="), environment)
            dumps.run(world, words, rows)
        case ["chown", "--recursive", "--no-dereference", owner, *trees]:
            _give(world, owner, [tree for tree in trees if tree != "--"])
        case ["cp", "--archive", "--", path, to]:
            _copy(world, words, path, to)
        case ["sync", "--file-system", _]:
            pass
        case ["chmod", "--recursive", "go=", tree]:
            dumps.close(world, tree)
        case ["psql", "--quiet", "--no-psqlrc", "--single-transaction", *_, host, port, name]:
            rows = lava.rows_of(world, words, [host, port, name], user, environment)
            rows.update(json.loads(stdin))
        case _:
            raise AssertionError(f"unknown command: {words}")
    return ""


def _shown(unit: str) -> str:
    """The properties of a unit that runs, as systemd.Systemd asks for them."""
    return (
        f"Id={unit}\nActiveState=active\nSubState=running\nStateChangeTimestamp=\n"
        "NRestarts=0\nResult=success"
    )


def _add(words: Sequence[str], names: set[str], name: str) -> None:
    if name in names:
        raise CommandFailed(words, 9, f"{name} already exists")
    names.add(name)


def _drop(words: Sequence[str], names: set[str], name: str) -> None:
    if name not in names:
        raise CommandFailed(words, 6, f"{name} does not exist")
    names.remove(name)


# Files


def _give(world: World, owner: str, trees: Sequence[str]) -> None:
    user, group = owner.split(":")
    assert user in world.users and group in world.groups
    for path in [path for tree in trees for path in (tree, *world.below(tree))]:
        world.nodes[path] = replace(world.nodes[path], owner=user, group=group)


def _copy(world: World, words: Sequence[str], path: str, to: str) -> None:
    """cp(1), to a name that is not there, or is a file's."""
    if path not in world.nodes or str(Path(to).parent) not in world.nodes:
        raise CommandFailed(words, 1, "No such file or directory")
    assert to not in world.nodes or world.nodes[to].kind == FILE, "it would be copied into it"
    for each in [path, *world.below(path)]:
        world.nodes[to + each[len(path) :]] = world.nodes[each]


# Apache


def _switch_site(
    world: World, words: Sequence[str], program: str, options: Sequence[str], name: str
) -> None:
    """a2ensite(8) and its like; a2dissite with --purge takes what is not there, too."""
    kind = "sites" if program.endswith("site") else "conf"
    file, link = (f"{APACHE}/{kind}-{state}/{name}.conf" for state in ("available", "enabled"))
    if program.startswith("a2en"):
        if file not in world.nodes:
            raise CommandFailed(words, 1, f"{name} does not exist")
        world.nodes[link] = Node(LINK, f"../{kind}-available/{name}.conf", 0o777)
    else:
        assert options == ["--purge"]
        world.nodes.pop(link, None)


def _enable_module(world: World, words: Sequence[str], name: str) -> None:
    """a2enmod(8) enables what a module depends on, first."""
    if f"{APACHE}/mods-available/{name}.load" not in world.nodes:
        raise CommandFailed(words, 1, f"Module {name} does not exist")
    for each in _dependencies(world, f"{APACHE}/mods-available/{name}.load"):
        _enable_module(world, words, each)
    for ending in ("load", "conf"):
        if f"{APACHE}/mods-available/{name}.{ending}" in world.nodes:
            target = f"../mods-available/{name}.{ending}"
            world.nodes[f"{APACHE}/mods-enabled/{name}.{ending}"] = Node(LINK, target, 0o777)


def _disable_module(world: World, words: Sequence[str], name: str) -> None:
    """a2dismod(8) refuses while another module depends on this one."""
    enabled = f"{APACHE}/mods-enabled"
    if any(name in _dependencies(world, path) for path in world.below(enabled)):
        raise CommandFailed(words, 1, f"ERROR: The following modules depend on {name}")
    for ending in ("load", "conf"):
        world.nodes.pop(f"{enabled}/{name}.{ending}", None)


def _dependencies(world: World, path: str) -> list[str]:
    return " ".join(re.findall(r"(?m)^# Depends:(.*)$", world.text(path))).split()


# systemd


def _systemctl(world: World, words: Sequence[str], verb: str, units: Sequence[str]) -> None:
    match verb, units:
        case "daemon-reload", []:
            _load_units(world)
        case "enable", [*names]:
            for name in names:
                world.directory(f"{UNITS}/{_wanted_by(world, words, name)}.wants")
                link = f"{UNITS}/{_wanted_by(world, words, name)}.wants/{name}"
                world.nodes[link] = Node(LINK, f"{UNITS}/{_template(name)}", 0o777)
            _load_units(world)
        case "disable", ["--now", *names]:
            for name in names:
                _disable(world, _wanted_by(world, words, name), name)
                _stop_unit(world, name)
        case "start", [*names]:
            for name in names:
                _start_unit(world, words, name)
        case "restart" | "reload-or-restart", [*names]:
            for name in names:
                _stop_unit(world, name)
                _start_unit(world, words, name)
        case "stop", [*names]:
            for name in names:
                _stop_unit(world, name)
        case _:
            raise AssertionError(f"unknown command: {words}")


def _load_units(world: World) -> None:
    files = [path for path in world.below(UNITS) if world.nodes[path].kind == FILE]
    world.units = {str(Path(path).relative_to(UNITS)): world.text(path) for path in files}


def _template(unit: str) -> str:
    return re.sub("@[^.]*", "@", unit)


def _instance(unit: str) -> str:
    return re.findall("@([^.]*)", unit)[0]


def _section(world: World, words: Sequence[str], unit: str, key: str) -> str:
    """What the file of a unit says of a key, with its specifier filled in."""
    if _template(unit) not in world.units:
        raise CommandFailed(words, 5, f"Unit {unit} not found.")
    found = re.search(rf"(?m)^{key}=(\S+)", world.units[_template(unit)])
    return found[1].replace("%i", _instance(unit)) if found else ""


def _wanted_by(world: World, words: Sequence[str], unit: str) -> str:
    path = f"{UNITS}/{_template(unit)}"
    if path not in world.nodes:
        raise CommandFailed(words, 1, f"Unit file {unit} does not exist.")
    wanted = re.search(r"(?m)^WantedBy=(\S+)", world.text(path))
    assert wanted
    return wanted[1].replace("%i", _instance(unit))


def _disable(world: World, wanted_by: str, unit: str) -> None:
    directory = f"{UNITS}/{wanted_by}.wants"
    world.nodes.pop(f"{directory}/{unit}", None)
    if not world.below(directory):
        world.nodes.pop(directory, None)


def _start_unit(world: World, words: Sequence[str], unit: str) -> None:
    if unit in world.running:
        return
    launcher = _section(world, words, unit, "ExecStart")
    if launcher and launcher not in world.nodes:
        raise CommandFailed(words, 1, f"Job for {unit} failed")
    # systemd.service(5): a service wants the units of its Sockets=
    socket = _section(world, words, unit, "Sockets")
    if socket:
        _start_unit(world, words, socket)
    slice_ = _slice(world, unit)
    if slice_:
        world.start(slice_, "")
    world.start(unit, launcher)
    for wanted in world.names(f"{UNITS}/{unit}.wants"):
        _start_unit(world, words, wanted)


def _slice(world: World, unit: str) -> str:
    """The slice that a drop-in of a unit names."""
    text = world.units.get(f"{unit}.d/slice.conf", "")
    return "".join(re.findall(r"(?m)^Slice=(\S+)", text))


def _stop_unit(world: World, unit: str) -> None:
    if unit.endswith(".slice"):
        world.end(unit)
        for one in [one for one in world.running if _slice(world, one) == unit]:
            world.end(one)
        return
    world.end(unit)
    parts = [one for one in world.running if f"PartOf={_template(unit)}" in _part_of(world, one)]
    for part in parts:
        if _instance(part) == _instance(unit):
            world.end(part)


def _part_of(world: World, unit: str) -> str:
    return world.units.get(_template(unit), "").replace("@%i.", "@.")


# The supervisor


def _start_supervisor(world: World, words: Sequence[str], configuration: Path) -> None:
    """supervisord(1) starts all programs that it finds."""
    if world.programs is not None or str(configuration) not in world.nodes:
        raise CommandFailed(words, 2, "Another program is already listening")
    world.put(configuration.with_name("supervisord.pid"), f"{SUPERVISOR}\n")
    world.put(f"/proc/{SUPERVISOR}/cmdline", f"{words[0]}\0-c\0{configuration}\0")
    world.programs = {}
    read_programs(world)
    for program in world.available:
        start_program(world, program)


def _end_supervisor(world: World) -> None:
    for program in world.programs or ():
        world.end(program)
    world.programs = None
    for path in list(world.nodes):
        if path.endswith("/supervisord.pid") or path.startswith(f"/proc/{SUPERVISOR}"):
            del world.nodes[path]


def read_programs(world: World) -> None:
    """Read the files of programs anew."""
    files = [path for path in world.nodes if re.search(r"/supervisor/programs/[^/]*\.conf$", path)]
    found = [re.split(r"(?m)^\[program:(.*)\]$", world.text(path))[1:] for path in sorted(files)]
    world.available = {
        name: text for parts in found for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def start_program(world: World, program: str) -> None:
    """Load a program as its file has it, and start it."""
    assert world.programs is not None
    world.programs[program] = world.available[program]
    launch(world, program)


def launch(world: World, program: str) -> None:
    assert world.programs is not None
    command = re.search(r"(?m)^command = .* (\S+)$", world.programs[program])
    assert command
    world.start(program, command[1])
