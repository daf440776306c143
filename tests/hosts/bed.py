#!/usr/bin/env python3
"""Throw-away Debian hosts to test on: the API for tests, and a tool to try things by hand.

In a test:

    from tests.hosts.bed import Bed, HostSpec, Images

    with Bed(Images()) as bed:
        server, worker = bed.up([HostSpec("server"), HostSpec("worker", init="plain")])
        server.put("dist", "/root/dist")
        print(server.run(["apt-get", "install", "-y", "git"]).stdout)

By hand, as root, from anywhere:

    tests/hosts/bed.py up --suite bookworm --init systemd --name server
    tests/hosts/bed.py up --suite trixie --init plain --name worker    (joins the same bed)
    tests/hosts/bed.py put server . /root/lava-deploy
    tests/hosts/bed.py run server systemctl status
    tests/hosts/bed.py run server                                      (a shell)
    tests/hosts/bed.py get server /var/log/syslog /tmp/syslog
    tests/hosts/bed.py reboot server
    tests/hosts/bed.py cut | restore                                   (the way to the registries)
    tests/hosts/bed.py log server
    tests/hosts/bed.py status
    tests/hosts/bed.py down

Who shares a machine with others gives each bed a name: `--bed mine` before the verb, or
LAVA_DEPLOY_BED=mine in the environment. The bare image of a suite and init is built at first use.
Images and downloaded packages are kept in /var/cache/lava-deploy-tests, or where
LAVA_DEPLOY_TEST_CACHE says; remove that directory while no bed is up to start afresh.

A host has what `mmdebstrap --variant=apt` gives, an init, sshd, sudo, iproute2, procps and the
certificates of authorities: no Python, no git. It reaches the package registries that apt and pip
of this machine use, this machine, and the other hosts of its bed by name: nothing else. A "plain"
host has no systemd, as a container: process 1 is tini, which runs sshd.
"""

import sys
from pathlib import Path

if __package__:
    from .beds import Bed, HostSpec, existing_beds
    from .errors import BedInUse, BootFailed, CommandFailed, HostsUnavailable
    from .host import Finished, Host
    from .images import PLAIN, SYSTEMD, Image, Images
    from .manifest import RESTLESS, Entry, difference

    __all__ = [
        "PLAIN",
        "RESTLESS",
        "SYSTEMD",
        "Bed",
        "BedInUse",
        "BootFailed",
        "CommandFailed",
        "Entry",
        "Finished",
        "Host",
        "HostSpec",
        "HostsUnavailable",
        "Image",
        "Images",
        "difference",
        "existing_beds",
    ]
else:  # run as a script, which has no package to import from
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from hosts.command_line import main

    sys.exit(main(__doc__))
